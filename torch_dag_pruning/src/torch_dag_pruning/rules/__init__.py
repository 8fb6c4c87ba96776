"""The axis rules of the core vocabulary, one small function an op."""

from torch_dag_pruning.axes.relation import AxisRule
from torch_dag_pruning.rules import (
    attention,
    contraction,
    elementwise,
    indexing,
    layout,
    normalization,
    reduction,
    sampling,
    tensors,
)

#: Ops of the core vocabulary without a rule: everything that they touch stays.
OPAQUE: frozenset[str] = frozenset(
    {
        "core.torch_call", "core.lstm", "core.gru", "core.rnn", "core.lstm_cell", "core.gru_cell", "core.rnn_cell",
    }
)  # fmt: skip


def core_rules() -> tuple[AxisRule, ...]:
    """Return the rules of the core vocabulary."""
    groups = (attention, contraction, elementwise, indexing, layout, normalization, reduction, sampling, tensors)
    return tuple(rule for group in groups for rule in group.RULES)


__all__ = ["OPAQUE", "core_rules"]
