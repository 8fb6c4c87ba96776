"""Gradients of a loss with respect to the masks of slots, sample by sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import atoms, membership
from torch_dag_pruning.axes.relation import Sink
from torch_dag_pruning.errors import CalibrationError

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

Loss = Callable[[Any, Any], Tensor]
"""Takes what the graph returned and the batch as it was given; returns one value for each sample."""


@dataclass(frozen=True)
class MaskGradients:
    """Sums over samples of functions of dL/dm, the derivative of a sample's loss by the mask of a slot, at m = 1.

    Attributes:
        total: Of dL/dm, by orbit key, one element for each slot.
        absolute: Of its absolute value.
        square: Of its square: the samples' number times the diagonal of the empirical Fisher matrix of the mask.
    """

    total: Mapping[str, Tensor]
    absolute: Mapping[str, Tensor]
    square: Mapping[str, Tensor]

    def __add__(self, other: MaskGradients) -> MaskGradients:
        return MaskGradients(
            _added(self.total, other.total), _added(self.absolute, other.absolute), _added(self.square, other.square)
        )


def _added(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value + second[key] for key, value in first.items()}


def random_signs(generator: torch.Generator) -> Loss:
    """Return a loss that needs no labels: the outputs of a sample, summed with random signs.

    The mean square of its derivative is the sum of the squared derivatives of all outputs: the diagonal of the
    Gauss-Newton matrix of the squared error of the outputs.
    """

    def loss(outputs: Any, batch: Any) -> Tensor:
        del batch
        losses = [_signed(output, generator) for output in _tensors(outputs) if output.is_floating_point()]
        if not losses:
            message = (
                "the graph returns no tensor of floats; pass loss=..., a function of what it returns and the batch"
            )
            raise CalibrationError(message)
        return torch.stack(losses).sum(0)

    return loss


def _signed(output: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(2, output.shape, generator=generator).to(output.device, output.dtype) * 2 - 1
    return (output * signs).flatten(1).sum(1)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for item in items for tensor in _tensors(item)]


@dataclass
class SampleMasks:
    """Masks of ones with a row for each sample, laid over the operands of contractions during one run of a graph."""

    analysis: Analysis
    samples: int
    _laid: list[tuple[Sink, Tensor]] = field(default_factory=list)

    def lay(self, vertex: InnerVertex, operands: Sequence[Any]) -> list[Any]:
        """Return the operands of a vertex, those that it contracts over orbits multiplied by fresh masks."""
        masked = list(operands)
        relation = self.analysis.relations.get(vertex.name)
        for sink in () if relation is None else relation.sinks:
            operand = masked[sink.operand]
            rows = operand.shape[0] if 0 not in sink.dims and operand.shape[0] % self.samples == 0 else 1
            if rows > 1 or self.samples == 1:
                ones = operand.new_ones(_shape(sink, operand, rows), requires_grad=True)
                self._laid.append((sink, ones))
                masked[sink.operand] = operand * ones
        return masked

    def gradients(self, losses: Tensor) -> MaskGradients:
        """Return the gradients of the samples' losses."""
        if losses.shape != (self.samples,):
            message = f"the loss must give one value for each of {self.samples} samples, got {tuple(losses.shape)}"
            raise CalibrationError(message)
        found = torch.autograd.grad(losses.sum(), [ones for _, ones in self._laid], allow_unused=True)
        by_atom: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
        for (sink, _), gradient in zip(self._laid, found, strict=True):
            if gradient is not None:
                for atom, rows in self._by_atom(sink, gradient).items():
                    by_atom[atom] = by_atom[atom] + rows
        per_orbit = {orbit.key: by_atom[orbit.atom.id].expand(self.samples, orbit.n) for orbit in self.analysis.orbits}
        return MaskGradients(
            {key: rows.sum(0) for key, rows in per_orbit.items()},
            {key: rows.abs().sum(0) for key, rows in per_orbit.items()},
            {key: rows.square().sum(0) for key, rows in per_orbit.items()},
        )

    def _by_atom(self, sink: Sink, gradient: Tensor) -> dict[int, Tensor]:
        """Return the derivatives by the masks of the atoms in a sink: (samples, slots) by atom."""
        rows = gradient.to("cpu", torch.float64).reshape(self.samples, -1, *_sizes(sink, gradient)).sum(1)
        found: dict[int, Tensor] = {}
        for place, axis in enumerate(sink.axes, start=1):
            others = [dim for dim in range(1, rows.dim()) if dim != place]
            positions = rows.sum(others) if others else rows
            for atom in atoms(axis):
                found[atom.id] = found.get(atom.id, 0) + positions @ membership(axis, atom)
        return found


def _shape(sink: Sink, operand: Tensor, rows: int) -> list[int]:
    wide = {dim % operand.dim() for dim in sink.dims}
    return [size if dim in wide else rows if dim == 0 else 1 for dim, size in enumerate(operand.shape)]


def _sizes(sink: Sink, gradient: Tensor) -> list[int]:
    return [gradient.shape[dim] for dim in sink.dims]
