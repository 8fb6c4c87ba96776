"""What one op says about the axes of its tensors: the language in which rules are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from torch_dag_pruning.axes import AxisSolver, Axis, Cause

Axes = list[Axis]
"""One axis expression for each dimension of a tensor."""


@dataclass(frozen=True)
class Sink:
    """An operand that the op contracts over an axis: a mask belongs on this edge.

    Attributes:
        operand: Which operand of the vertex is masked.
        dims: The dimensions over which the mask is laid, in order; usually one.
        axes: The expressions whose masks multiply there. They may differ from the operand's own axes: a grouped
            convolution masks ``Product(Fixed(groups), inner)`` because its groups pass through.
    """

    operand: int
    dims: tuple[int, ...]
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Relation:
    """What a rule returns. Every axis in it may be unresolved; it is resolved when it is read.

    Attributes:
        outputs: The axes of each output tensor.
        sinks: The edges to mask.
        parameters: The axes of the module's own tensors, by name within the module.
        rewrite: Entries of the op's configuration that change with sizes: config name to a value in which every
            int that follows an axis is replaced by that axis (tuples are entered).
        masked: Builds the masked form of a module whose statistics or reductions run over prunable axes; None where
            masks on the sinks are enough. Called as ``masked(module, mask_of)`` with ``mask_of(axis) -> Tensor``.
        minimum: Axes that must keep at least this many slots (unbiased variance needs 2).
    """

    outputs: list[Axes]
    sinks: tuple[Sink, ...] = ()
    parameters: Mapping[str, Axes] = field(default_factory=dict)
    rewrite: Mapping[str, Any] = field(default_factory=dict)
    masked: Callable[[nn.Module, Callable[[Axis], Any]], nn.Module] | None = None
    minimum: tuple[tuple[Axis, int], ...] = ()


@dataclass(frozen=True)
class Context:
    """What a rule is given: one vertex, its tensors, and the solver.

    Attributes:
        module: The vertex's module.
        inputs: The axes of each operand.
        shapes: The sizes of each operand.
        outputs: The sizes of each output tensor.
        solver: Where relations are stated.
        vertex: Name of the vertex, for causes.
        op: Key of the op, for causes.
    """

    module: Any
    inputs: Sequence[Axes]
    shapes: Sequence[tuple[int, ...]]
    outputs: Sequence[tuple[int, ...]]
    solver: AxisSolver
    vertex: str
    op: str

    def cause(self, reason: str) -> Cause:
        """Return the cause for something that this op freezes or ties."""
        return Cause(self.vertex, self.op, reason)


Rule = Callable[[Context], Relation]


@dataclass(frozen=True)
class AxisRule:
    """One rule as plugins add it: for op keys of the registry.

    Attributes:
        keys: Op keys (``core.conv2d``) that the rule describes.
        rule: The rule.
    """

    keys: tuple[str, ...]
    rule: Rule


def axis_rule(*keys: str) -> Callable[[Rule], AxisRule]:
    """Declare the axis rule of the ops with these keys."""

    def declare(rule: Rule) -> AxisRule:
        return AxisRule(keys, rule)

    return declare


def rules_by_key(rules: Iterable[AxisRule]) -> dict[str, Rule]:
    """Index rules by op key."""
    return {key: rule.rule for rule in rules for key in rule.keys}
