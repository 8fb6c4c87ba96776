"""Any PyTorch model as one clean, editable graph that saves to one file and loads without the model's source.

>>> import torch
>>> import torch_dag_core as td
>>> dag = td.build_from_unstructured_module(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()))
>>> print(dag)
DagModule(
  input: (*, 4) float32
  0 = Linear(in_features=4, out_features=2, bias=True)(input)
  1 = ReLU()(0)
  output: 1
)
"""

from typing import TYPE_CHECKING

from torch_dag_core import core_plugin
from torch_dag_core.lazy_names import lazy_names
from torch_dag_core.plugins.loading import set_core_plugin

if TYPE_CHECKING:
    from torch_dag_core.api import *  # noqa: F403

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, distribution="torch-dag-core")

set_core_plugin(core_plugin)
