"""What can be done about channels that cannot be removed, by the reason."""

from __future__ import annotations

from torch_dag_pruning.axes import Cause

_BY_OP = {
    "output": "what the model returns keeps its size; analyze(dag, free_outputs=[...]) frees it for a backbone",
    "input": "what the model is given keeps its size",
    "no op": "a constant or a learned tensor makes these slots, no layer; nothing can be removed from it",
}
_BY_REASON = (
    ("no axis rule", "write an axis rule for the op, or give it an expansion: docs/plugins.md, torch_dag_axis_rules"),
    ("no rule describes", "the axis rule of the op leaves this tensor out; describe it there"),
    ("picked by position", "the code reads fixed positions; split the tensor into equal parts instead, with chunk"),
    ("a size is computed", "the code computes with this size; take it from an axis that stays"),
    ("follows the input's", "give the layer a fixed image size, if the model is used at one size alone"),
    ("runs along this axis", "an op mixes or orders these slots, as a convolution does places"),
    ("halves of a gated unit", "use two layers for the two halves, or a chunk instead of the fused op"),
    ("softmax runs over the keys", "the number of keys is that of the tokens; nothing to remove"),
)  # fmt: skip


def advice(cause: Cause) -> str:
    """Return a sentence about what helps; empty where nothing is known to."""
    by_reason = next((text for reason, text in _BY_REASON if reason in cause.reason), "")
    return _BY_OP.get(cause.op, by_reason)
