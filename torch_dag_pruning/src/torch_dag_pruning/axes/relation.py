"""The interface of axis rules: what a rule is given (`Context`) and what it returns (`Relation`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from torch_dag_core.graph.values import Size
from torch_dag_core.plugins.record_checks import CALLABLE, OPTIONAL_CALLABLE, SOME_NAMES, check_fields
from torch_dag_pruning.axes import Axis, AxisSolver, Cause, Fixed
from torch_dag_pruning.axes.stand_in import StandIn
from torch_dag_pruning.errors import AnalysisError

Axes = list[Axis]
"""One axis expression for each dimension of a tensor."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sink:
    """An operand that the op sums over an axis of, so that a mask is applied to this edge of the graph.

    Attributes:
        operand: Index of the operand of the vertex.
        dims: The dimensions of the operand that the mask extends over, in order; usually one.
        axes: One expression per dimension, whose masks are multiplied. They may differ from the operand's own axes: a
            grouped convolution masks ``Product(Fixed(groups), inner)``, because it does not sum over its groups.
    """

    operand: int
    dims: tuple[int, ...]
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class FromEnd:
    """The bound of a slice that is counted from the end, in `Relation.rewrite`.

    Attributes:
        axis: What lies behind the bound.
    """

    axis: Axis


@dataclass(frozen=True)
class Relation:
    """What a rule returns. Its axes may be unresolved: the analysis resolves them after all rules have run.

    Attributes:
        outputs: The axes of each output tensor; nested tuples of tensors are flattened.
        sinks: The edges to mask.
        parameters: The axes of the module's own tensors, by name within the module. Tensors left out stay whole.
        rewrite: Entries of the op's configuration that depend on sizes: config name to the same value with the axis in
            place of every int or `Size` that is its size. Values may be nested in tuples and slices; negative bounds of
            slices are `FromEnd`.
        masked: Builds the masked form of a module whose statistics or reductions run over prunable axes; None if masks
            on the sinks are enough. Called as ``masked(module, mask_of)`` with ``mask_of(axis) -> Tensor``.
        statistics: The axes that those statistics run over. If none of them can be pruned, the analysis replaces
            ``masked`` by None.
        minimum: Pairs of an axis and the number of slots that it must keep; unbiased variance, for example, needs 2.
        learned: The axes that the op makes with learned weights: the out axis of a contraction, the width of an
            embedding. An atom becomes an orbit only if it occurs in one of them.
        cleared: Dimensions of the first output in which the masked form gives exact zeros for removed slots, as a
            masked softmax does. A contraction over such a dimension needs no mask; a second one would square soft
            masks.
    """

    outputs: list[Axes]
    sinks: tuple[Sink, ...] = ()
    parameters: Mapping[str, Axes] = field(default_factory=dict)
    rewrite: Mapping[str, Any] = field(default_factory=dict)
    masked: Callable[[nn.Module, Callable[[Axis], Any]], nn.Module] | None = None
    statistics: tuple[Axis, ...] = ()
    minimum: tuple[tuple[Axis, int], ...] = ()
    learned: tuple[Axis, ...] = ()
    cleared: tuple[int, ...] = ()


@dataclass
class AxisStore:
    """The solver of one analysis, and the axes that several vertices or both runs of the rules share.

    An analysis may run all rules at two input sizes. Learned tensors and the atoms that ops make have the same axes in
    both runs, so that a slot stays prunable only if it is so at both sizes (``docs/axis-algebra.md``, A10).
    """

    solver: AxisSolver = field(default_factory=AxisSolver)
    _of_tensors: dict[int, tuple[Tensor, Axes]] = field(default_factory=dict)
    _of_roles: dict[tuple[str, str], Axis] = field(default_factory=dict)

    def of_tensor(self, tensor: Tensor, name: str) -> Axes:
        """Return the axes of a learned tensor: one new atom for each dimension at the first call, the same ones later.

        Tensors are told apart by identity, so a weight that several modules share has one set of axes.
        """
        known = self._of_tensors.get(id(tensor))
        if known is None:
            axes = [self.solver.atom(n, f"{name}:{dim}") for dim, n in enumerate(tensor.shape)]
            known = self._of_tensors[id(tensor)] = (tensor, axes)
        return known[1]

    def of_role(self, vertex: str, role: str, n: int, cause: Cause) -> Axis:
        """Return the atom that a vertex makes in the given role; frozen if its size differs between calls."""
        known = self._of_roles.get((vertex, role))
        if known is None:
            known = self._of_roles[vertex, role] = self.solver.atom(n, f"{vertex}:{role}")
        if known.n == n:
            return known
        self.solver.freeze(known, cause)
        return Fixed(n, cause)


@dataclass(frozen=True)
class Context:
    """What a rule is given: one vertex, its operands, and the solver.

    Attributes:
        module: The vertex's module.
        inputs: The axes of each operand; for an operand that is a tuple of tensors, a tuple of them.
        shapes: The sizes of each operand, nested the same way.
        outputs: The sizes of each output tensor; nested tuples of tensors are flattened.
        solver: Takes the equalities that the rule states.
        vertex: Name of the vertex, for causes.
        op: Key of the op, for causes.
        dtypes: The dtype of each operand; None for a tuple.
        learned: For each operand, whether it is computed from learned tensors alone.
        reads: Indices of the outputs that other vertices read; None if that is not known.
        cleared: For each operand, the dimensions in which removed slots are exact zeros in the masked graph.
        store: The axes of learned tensors, and of the atoms that vertices make.
    """

    module: Any
    inputs: Sequence[Any]
    shapes: Sequence[Any]
    outputs: Sequence[Shape]
    solver: AxisSolver
    vertex: str
    op: str
    dtypes: Sequence[Any] = ()
    learned: Sequence[bool] = ()
    reads: frozenset[int] | None = None
    cleared: Sequence[tuple[int, ...]] = ()
    store: AxisStore = field(default_factory=AxisStore)

    def cause(self, reason: str) -> Cause:
        """Return the cause to record for slots that this op freezes."""
        return Cause(self.vertex, self.op, reason)

    def number(self, size: int | Size) -> int:
        """Return an entry of the configuration that may follow the sizes of operands as a number."""
        if isinstance(size, int):
            return size
        followed: int = math.prod(self.shapes[operand][dim] for operand, dim in size.dims)
        return size.num * followed // size.den + size.add

    # Making ----------------------------------------------------------------------------------------------------

    def atom(self, n: int, role: str) -> Axis:
        """Return ``n`` new prunable slots; ``role`` distinguishes them from other atoms of this vertex."""
        return self.store.of_role(self.vertex, role, n, self.cause("its size follows the input's"))

    def fixed(self, n: int, reason: str | None = None) -> Axis:
        """Return ``n`` slots that cannot be removed; without a reason the report attributes them to no vertex."""
        return Fixed(n, None if reason is None else self.cause(reason))

    def parameters(self, *names: str) -> dict[str, Axes]:
        """Return the axes of the module's own tensors by name; names that it has no tensor for are left out."""
        tensors = {name: getattr(self.module, name, None) for name in names}
        return {
            name: self.store.of_tensor(tensor, f"{self.vertex}.{name}")
            for name, tensor in tensors.items()
            if tensor is not None
        }

    # Relating --------------------------------------------------------------------------------------------------

    def unify(self, a: Axis, b: Axis, reason: str = "tied to an axis that stays") -> None:
        """Make two axes equal slot by slot; freeze both if their sizes differ."""
        if a is b:
            return
        if a.n == b.n:
            self.solver.unify(a, b, self.cause(reason))
        else:
            self.freeze([a, b], reason)

    def freeze(self, axes: Iterable[Axis], reason: str) -> None:
        """Make every slot of the axes Fixed, with this vertex as the cause."""
        cause = self.cause(reason)
        for axis in axes:
            self.solver.freeze(axis, cause)

    def reshape(self, axes: Sequence[Axis], sizes: Sequence[int]) -> Axes:
        """Return the axes of a row-major reshape to ``sizes``, of which one may be ``-1``, as in `torch.reshape`."""
        return self.solver.reshape(axes, _completed(axes, sizes), self.cause("factors do not fit"))


def _completed(axes: Sequence[Axis], sizes: Sequence[int]) -> list[int]:
    total = known = 1
    for axis in axes:
        total *= axis.n
    for size in sizes:
        known *= 1 if size == -1 else size
    return [total // known if size == -1 else size for size in sizes]


Rule = Callable[[Context], Relation]


@dataclass(frozen=True)
class AxisRule:
    """An axis rule with the ops that it describes; what the hook ``torch_dag_axis_rules`` returns.

    Attributes:
        keys: Keys of the ops in the registry, such as ``core.conv2d``.
        rule: Called once for each vertex with one of these ops.
        stand_in: What takes the place of the op when nothing is left of an operand that it contracts over; without
            one such a removal is refused.
    """

    keys: tuple[str, ...]
    rule: Rule
    stand_in: StandIn | None = None

    def __post_init__(self) -> None:
        """Check the types of the fields."""
        check_fields(self, {"keys": SOME_NAMES, "rule": CALLABLE, "stand_in": OPTIONAL_CALLABLE})

    @property
    def names(self) -> tuple[str, ...]:
        """The keys."""
        return self.keys


def axis_rule(*keys: str, stand_in: StandIn | None = None) -> Callable[[Rule], AxisRule]:
    """Make the decorated function the `AxisRule` of the ops with these keys."""

    def decorate(rule: Rule) -> AxisRule:
        return AxisRule(keys, rule, stand_in)

    return decorate


def rules_by_key(rules: Iterable[AxisRule]) -> dict[str, Rule]:
    """Index rules by op key.

    Raises:
        AnalysisError: two rules describe the same op.
    """
    found: dict[str, Rule] = {}
    for rule in rules:
        for key in rule.keys:
            if key in found:
                message = f"op {key!r} has two axis rules; a plugin cannot replace the rule of another"
                raise AnalysisError(message)
            found[key] = rule.rule
    return found
