"""What one op says about the axes of its tensors: the language in which rules are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from torch_dag_core.plugins.record_checks import CALLABLE, OPTIONAL_CALLABLE, SOME_NAMES, check_fields
from torch_dag_pruning.axes import Axis, AxisSolver, Cause, Fixed
from torch_dag_pruning.axes.stand_in import StandIn
from torch_dag_pruning.errors import AnalysisError

Axes = list[Axis]
"""One axis expression for each dimension of a tensor."""

Shape = tuple[int, ...]


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
        outputs: The axes of each output tensor; nested tuples of tensors are flattened.
        sinks: The edges to mask.
        parameters: The axes of the module's own tensors, by name within the module; those left out are not cut.
        rewrite: Entries of the op's configuration that change with sizes: config name to a value in which every
            int or `Size` that follows an axis is replaced by that axis (tuples and slices are entered).
        masked: Builds the masked form of a module whose statistics or reductions run over prunable axes; None where
            masks on the sinks are enough. Called as ``masked(module, mask_of)`` with ``mask_of(axis) -> Tensor``.
        statistics: The axes that those statistics run over. Where none of them can be pruned, the analysis replaces
            ``masked`` by None.
        minimum: Axes that must keep at least this many slots (unbiased variance needs 2).
        learned: Out axes of a learned contraction or an embedding. An atom is offered as an orbit only if it occurs
            in one.
        cleared: Dimensions of the first output along which the masked form leaves zeros in dead slots, as a masked
            softmax does. A contraction over one needs no mask, which would only be squared.
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
    """The axes that one analysis has made: one solver, and what several vertices or several runs share.

    An analysis may run all rules at two input sizes. Parameters and numbered atoms are the same in both, so that only
    what holds at both sizes survives.
    """

    solver: AxisSolver = field(default_factory=AxisSolver)
    _of_tensors: dict[int, tuple[Tensor, Axes]] = field(default_factory=dict)
    _of_roles: dict[tuple[str, str], Axis] = field(default_factory=dict)

    def of_tensor(self, tensor: Tensor, name: str) -> Axes:
        """Return the axes of a learned tensor; tied tensors are one entry."""
        known = self._of_tensors.get(id(tensor))
        if known is None:
            axes = [self.solver.atom(n, f"{name}:{dim}") for dim, n in enumerate(tensor.shape)]
            known = self._of_tensors[id(tensor)] = (tensor, axes)
        return known[1]

    def of_role(self, vertex: str, role: str, n: int, cause: Cause) -> Axis:
        """Return the atom that a vertex makes under this name; it is frozen where its size is not always the same."""
        known = self._of_roles.get((vertex, role))
        if known is None:
            known = self._of_roles[vertex, role] = self.solver.atom(n, f"{vertex}:{role}")
        if known.n == n:
            return known
        self.solver.freeze(known, cause)
        return Fixed(n, cause)


@dataclass(frozen=True)
class Context:
    """What a rule is given: one vertex, its tensors, and the solver.

    Attributes:
        module: The vertex's module.
        inputs: The axes of each operand; for an operand that is a tuple of tensors, a tuple of such.
        shapes: The sizes of each operand, nested the same way.
        outputs: The sizes of each output tensor; nested tuples of tensors are flattened.
        solver: Where relations are stated.
        vertex: Name of the vertex, for causes.
        op: Key of the op, for causes.
        dtypes: The element type of each operand; None for a tuple.
        learned: Tells of each operand whether it is computed from learned tensors alone.
        reads: Which of several outputs are read; None where that is not known.
        cleared: For each operand, the dimensions along which dead slots hold zeros when masked.
        store: The axes of parameters, and atoms by role.
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
        """Return the cause for something that this op freezes or ties."""
        return Cause(self.vertex, self.op, reason)

    # Making ----------------------------------------------------------------------------------------------------

    def atom(self, n: int, role: str) -> Axis:
        """Return new slots that may be pruned; ``role`` tells them from others of this vertex."""
        return self.store.of_role(self.vertex, role, n, self.cause("its size follows the input's"))

    def fixed(self, n: int, reason: str | None = None) -> Axis:
        """Return slots that stay; without a reason nobody is to blame for it."""
        return Fixed(n, None if reason is None else self.cause(reason))

    def parameters(self, *names: str) -> dict[str, Axes]:
        """Return the axes of the module's own tensors of these names, without those that it does not have."""
        tensors = {name: getattr(self.module, name, None) for name in names}
        return {
            name: self.store.of_tensor(tensor, f"{self.vertex}.{name}")
            for name, tensor in tensors.items()
            if tensor is not None
        }

    # Relating --------------------------------------------------------------------------------------------------

    def unify(self, a: Axis, b: Axis, reason: str = "tied to an axis that stays") -> None:
        """Make two axes equal slot by slot; axes of other sizes are frozen."""
        if a.n == b.n:
            self.solver.unify(a, b, self.cause(reason))
        else:
            self.freeze([a, b], reason)

    def freeze(self, axes: Iterable[Axis], reason: str) -> None:
        """Fix every slot of the axes."""
        cause = self.cause(reason)
        for axis in axes:
            self.solver.freeze(axis, cause)

    def reshape(self, axes: Sequence[Axis], sizes: Sequence[int]) -> Axes:
        """Return the axes of a row-major reshape; ``-1`` stands for the rest."""
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
    """One rule as plugins add it: for op keys of the registry.

    Attributes:
        keys: Op keys (``core.conv2d``) that the rule describes.
        rule: The rule.
        stand_in: What takes the place of the op when nothing is left of an operand that it contracts over; without
            one such a removal is refused.
    """

    keys: tuple[str, ...]
    rule: Rule
    stand_in: StandIn | None = None

    def __post_init__(self) -> None:
        """Refuse fields of the wrong kind."""
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
