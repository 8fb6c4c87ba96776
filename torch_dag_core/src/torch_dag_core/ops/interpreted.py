"""Keys of the module classes defined with the graph: tensor holders, `GetItem` and `TrainingSwitch`."""

from __future__ import annotations

from torch_dag_core.graph.builtin_ops import Constant, FreeParameter, GetItem, State, TrainingSwitch
from torch_dag_core.ops.flops import free
from torch_dag_core.plugins.declarations import declare

GET_ITEM = declare("core.get_item", GetItem, flops=free)
TRAINING_SWITCH = declare("core.training_switch", TrainingSwitch, flops=free)
FREE_PARAMETER = declare("core.free_parameter", FreeParameter, flops=free)
CONSTANT = declare("core.constant", Constant, flops=free)
STATE = declare("core.state", State, flops=free)
