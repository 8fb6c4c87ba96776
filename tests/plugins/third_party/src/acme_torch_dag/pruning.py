"""What torch-dag-pruning has to know; imported only where that is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torch_dag_pruning.axes.relation import Relation, axis_rule
from torch_dag_pruning.plan.criteria import slot_scores


@axis_rule("acme.outlier_clip")
def outlier_clip(ctx: Any) -> Relation:
    """Tie the scale to the last dimension."""
    parameters = ctx.parameters("scale")
    width = parameters["scale"][0]
    ctx.unify(width, ctx.inputs[0][-1])
    return Relation([list(ctx.inputs[0])], parameters=parameters, rewrite={"width": width})


@axis_rule("acme.snake")
def snake(ctx: Any) -> Relation:
    """Pass all axes: each element is computed from the one at its place."""
    return Relation([list(ctx.inputs[0])])


@dataclass(frozen=True)
class LargestWeight:
    """Score a slot by the sum of its weights to the fourth: large ones count for almost everything."""

    name: str = "acme-largest"

    def score(self, analysis: Any) -> dict[str, Tensor]:
        """Return one score for each slot."""
        return slot_scores(analysis, lambda weight: weight.pow(4))
