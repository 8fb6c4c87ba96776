"""The proof of a removal: the masked and the smaller graph are compared at every vertex (R3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.builtin_ops import TensorHolder
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.nested import map_leaves
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.analysis.value_axes import ValueAxes
from torch_dag_pruning.errors import RemovalMismatchError
from torch_dag_pruning.removal.draws import Draws, own_random_state
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.stepping import Stepper, tensors_of

TOLERANCE = 1e-4
"""Largest accepted difference in single precision, relative to the largest element of a value."""
DOUBLE_TOLERANCE = 1e-9
"""Largest accepted relative difference in double precision, which decides where single precision does not agree."""
_DOUBT = 32
"""Differences up to this multiple of the machine epsilon are rounding; larger ones are scaled by the operands too."""
_CANCELLED = 1e-3
"""Smallest scale of a difference, as a fraction of the largest operand: a sum that cancels is as exact as its terms."""
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Proof:
    """The result of comparing the masked with the removed graph.

    Attributes:
        worst: Largest difference of an element, relative to the largest element of its value.
        vertex: Name of the vertex with this difference.
        vertices: Number of vertices compared.
        effect: Difference between the kept part of the outputs before pruning and the outputs after it, measured in
            the same way.
        dtype: Precision of the comparison.
        equal: Number of vertices with equal values in both graphs, bit for bit.
    """

    worst: float
    vertex: str
    vertices: int
    effect: float
    dtype: torch.dtype = torch.float32
    equal: int = 0

    def __str__(self) -> str:
        precision = str(self.dtype).removeprefix("torch.")
        return (
            f"masked and removed agree to {self.worst:.1e} at all {self.vertices} vertices in {precision} "
            f"(worst at {self.vertex}); pruning changed the output by {self.effect:.1%}"
        )


@dataclass(frozen=True)
class Graphs:
    """The three graphs of a proof, in evaluation mode and in one precision.

    Attributes:
        before: The analysed graph.
        masked: The analysed graph with masks.
        removed: The smaller graph.
    """

    before: DagModule
    masked: DagModule
    removed: DagModule


def compared(
    graphs: Graphs, kept: Kept, axes: ValueAxes, inputs: Sequence[Tensor], dtype: torch.dtype = torch.float32
) -> Proof:
    """Compare the kept slots of the masked graph with the removed graph at every vertex.

    Args:
        graphs: The three graphs in the precision ``dtype``.
        kept: The kept slots of any axis.
        axes: The axes of all values of the analysed graph.
        inputs: One tensor for each input vertex, of the analysed sizes.
        dtype: Precision of the comparison: ``torch.float32`` or ``torch.float64``.

    Raises:
        RemovalMismatchError: names the first vertex whose shape differs from the predicted one, or whose value differs
            by more than the tolerance of the precision.
    """
    tensors = [_cast(tensor, dtype) for tensor in inputs]
    draws = Draws(kept, axes.outputs)
    with own_random_state((*tensors, *graphs.before.parameters(), *graphs.before.buffers())):
        steps = _LockStep(graphs, tensors, draws, kept, axes)
        steps.run()
        effect = _effect(Stepper(graphs.before, tensors, draws.seeded), steps.removed, kept, axes)
    differences = steps.differences
    vertex = max(differences, key=lambda name: differences[name], default="")
    equal = sum(difference == 0 for difference in differences.values())
    return Proof(differences.get(vertex, 0.0), vertex, len(differences), effect, dtype, equal)


class _LockStep:
    """Runs the masked and the removed graph side by side, and compares every vertex that both compute.

    Each vertex of the removed graph is given what the masked one has at the kept slots. So it has to compute the same
    from the same operands, which proves the graphs equal by induction (M2); rounding does not accumulate, and ops that
    compare, sort or round see equal values. The masked graph is ahead, because its draws are repeated.

    Attributes:
        removed: The run of the removed graph.
        differences: The difference at each compared vertex, by name.
    """

    def __init__(
        self, graphs: Graphs, inputs: Sequence[Tensor], draws: Draws, kept: Kept, axes: ValueAxes
    ) -> None:  # fmt: skip
        masked = Stepper(graphs.masked, inputs, draws.recorded)
        self.removed = Stepper(graphs.removed, inputs, self._follow)
        self.differences: dict[str, float] = {}
        self._draws, self._kept, self._axes = draws, kept, axes
        self._shared = masked.names & self.removed.names
        self._ahead = masked.steps()
        self._waiting: dict[str, Any] = {}

    def run(self) -> None:
        """Run both graphs to their ends.

        Values are dropped after they were compared, so few are in memory at a time.

        Raises:
            RemovalMismatchError: the first vertex differs.
        """
        for vertex, value in self.removed.steps():
            self._agreed(vertex, value)  # vertices that are not called, such as training switches

    def _follow(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        self._advance(vertex.name)
        return self._agreed(vertex, self._draws.repeated(vertex, operands))

    def _agreed(self, vertex: InnerVertex, value: Any) -> Any:
        """Compare the value of a vertex, once, and return what the masked graph has at the kept slots."""
        name = vertex.name
        if name in self.differences or name not in self._shared:
            return value
        self._advance(name)
        wanted = self._waiting.pop(name)
        if isinstance(vertex.module, TensorHolder) or len(self._axes.outputs(name)) != 1:
            self._shared.discard(name)
            return value
        axes = self._axes.outputs(name)[0]
        _require_shape(vertex, value, self._kept.sizes(axes))
        wanted = self._kept.take(wanted, axes)
        self.differences[name] = _difference(vertex, wanted, value, self.removed)
        return value if self.differences[name] == 0 else torch.empty_like(value).copy_(wanted)

    def _advance(self, name: str) -> None:
        """Run the masked graph until it has the vertex ``name``, if both graphs compute that."""
        while name in self._shared and name not in self._waiting:
            other, found = next(self._ahead)
            if other.name in self._shared:
                self._waiting[other.name] = found


def _require_shape(vertex: InnerVertex, value: Tensor, wanted: Sequence[int]) -> None:
    if tuple(value.shape) != wanted:
        message = f"vertex {vertex.name!r} has the shape {tuple(value.shape)}, the plan leaves {wanted}"
        raise RemovalMismatchError(vertex.name, math.inf, message)


def _difference(vertex: InnerVertex, wanted: Tensor, given: Tensor, removed: Stepper) -> float:
    """Return the relative difference between two values of a vertex.

    Raises:
        RemovalMismatchError: the difference exceeds the tolerance.
    """
    name = vertex.name
    difference = relative_difference(wanted, given)
    if difference > _rounding(given):
        # The rounding error of a sum that cancels is relative to its terms, which may be much larger than it.
        difference = relative_difference(wanted, given, _CANCELLED * largest(removed.operands()))
    if difference > _limit(given):
        message = (
            f"vertex {name!r} differs by {difference:.1e} of its largest element between the masked and the removed "
            "graph; the axis rule of its op or of one before it is wrong, please report it"
        )
        raise RemovalMismatchError(name, difference, message)
    return difference


def _rounding(value: Tensor) -> float:
    is_exact = not (value.is_floating_point() or value.is_complex())
    return 0.0 if is_exact else _DOUBT * torch.finfo(value.dtype).eps


def _limit(value: Tensor) -> float:
    return DOUBLE_TOLERANCE if value.dtype == torch.float64 else TOLERANCE


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> float:
    """Return the largest absolute value of the finite elements of all floating-point tensors, 0 if there are none."""
    real = [tensor for tensor in tensors if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex())]
    return max((float(torch.where(tensor.isfinite(), tensor, 0.0).abs().max()) for tensor in real), default=0.0)


@torch.no_grad()
def relative_difference(wanted: Tensor, given: Tensor, least: float = 0.0) -> float:
    """Return the largest difference of an element, divided by the largest finite element of ``given``.

    The divisor is at least ``least``. Equal tensors give 0, NaN equals NaN, and tensors of other than floating-point or
    complex type that differ give infinity.
    """
    same = (wanted == given) | (wanted.isnan() & given.isnan())
    if bool(same.all()):
        return 0.0
    if not (given.is_floating_point() or given.is_complex()):
        return math.inf
    difference = float(torch.where(same, 0.0, (wanted - given).abs()).max())
    scale = max(largest([given]), least)
    return difference / scale if scale and math.isfinite(difference) else math.inf


def _effect(before: Stepper, after: Stepper, kept: Kept, axes: ValueAxes) -> float:
    for _ in before.steps():
        pass
    pairs = zip(before.returned, before.outputs, after.outputs, strict=True)
    differences = [
        relative_difference(kept.take(old, axes.outputs(name)[0]), new)
        for name, olds, news in pairs
        for old, new in zip(tensors_of(olds), tensors_of(news), strict=True)
    ]
    return max(differences, default=0.0)


# Precision -----------------------------------------------------------------------------------------------------


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def in_precision(dag: DagModule, dtype: torch.dtype) -> DagModule:
    """Return a copy in evaluation mode that computes in ``dtype``, including the casts in the graph."""
    copy = dag.clone().eval()
    for tensor in (*copy.parameters(), *copy.buffers()):
        tensor.data = _cast(tensor.data, dtype)
    for vertex in copy.traverse():
        op = getattr(vertex, "module", None)
        if isinstance(op, Op) and not isinstance(op, TensorHolder):
            for name in op.fields:
                setattr(op, name, map_leaves(getattr(op, name), lambda leaf: dtype if leaf in _REAL else leaf))
    return copy
