"""The state of a choice of channels, to be saved with a training and loaded when the training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch_dag_pruning.learning.choosing import Choosing
from torch_dag_pruning.learning.descent import Descent
from torch_dag_pruning.learning.widths import RankedWidths
from torch_dag_pruning.plan.plan import Plan


def choice_state(choosing: Choosing, descent: Descent) -> dict[str, Any]:
    """Return what was learned about channels, the optimizer of that, and the plan where the choice stands."""
    plan, module = choosing.plan, choosing.module
    return {
        "learned": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "window": getattr(module, "window", 0.0),
        "optimizer": None if descent.optimizer is None else descent.optimizer.state_dict(),
        "generator": choosing.generator.get_state(),
        "plan": None if plan is None else {key: list(slots) for key, slots in plan.kept.items()},
    }


def load_choice(choosing: Choosing, descent: Descent, state: Mapping[str, Any]) -> None:
    """Take over a state that `choice_state` returned for a choice of the same settings."""
    choosing.module.load_state_dict(state["learned"])
    if isinstance(choosing.module, RankedWidths):
        choosing.module.window = state["window"]
    if descent.optimizer is not None:
        descent.optimizer.load_state_dict(state["optimizer"])
    choosing.generator.set_state(state["generator"])
    if state["plan"] is not None:
        choosing.plan = Plan.keeping(choosing.analysis, state["plan"])
