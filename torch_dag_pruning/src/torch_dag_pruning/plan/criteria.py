"""Importance of slots: scores of the places where an orbit occurs, summed by the chain rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from torch_dag_pruning.axes import Axis, atoms, mask

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis


@runtime_checkable
class ImportanceCriterion(Protocol):
    """A way to score slots; larger is more important.

    Attributes:
        name: What users call it.
    """

    @property
    def name(self) -> str:
        """What users call it."""

    def score(self, analysis: Analysis) -> dict[str, Tensor]:
        """Return one score for each slot, by orbit key."""


@dataclass(frozen=True)
class Magnitude:
    """The p-norm of everything that goes with a slot: its row or column in every learned tensor."""

    name: str
    p: int = 2

    def score(self, analysis: Analysis) -> dict[str, Tensor]:
        """Return, for each slot, the norm of all learned elements that belong to it."""
        powers = slot_scores(analysis, lambda tensor: tensor.abs().pow(self.p))
        return {key: score.pow(1 / self.p) for key, score in powers.items()}


@dataclass(frozen=True)
class Random:
    """Scores drawn at random: the baseline of every other criterion."""

    name: str = "random"
    seed: int = 0

    def score(self, analysis: Analysis) -> dict[str, Tensor]:
        """Return uniform random numbers, equal for equal seeds and orbits."""
        generator = torch.Generator().manual_seed(self.seed)
        return {orbit.key: torch.rand(orbit.n, generator=generator, dtype=torch.float64) for orbit in analysis.orbits}


def slot_scores(analysis: Analysis, of_elements: Any) -> dict[str, Tensor]:
    """Sum a score of every learned element over the slots that it belongs to.

    The score of a position is the sum over the other dimensions; the score of a slot is the gradient of the
    positions' scores, weighted with the mask of their axis, with respect to the slot's mask, where all masks are 1.

    Args:
        analysis: Of the graph.
        of_elements: Maps a learned tensor to the scores of its elements.
    """
    total: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    for tensor, axes in learned_tensors(analysis):
        elements = of_elements(tensor.detach()).to("cpu", torch.float64)
        for dim, axis in enumerate(axes):
            others = [other for other in range(elements.dim()) if other != dim]
            for atom, share in pulled_back(axis, elements.sum(others) if others else elements).items():
                total[atom] = total[atom] + share
    zeros = {orbit.key: torch.zeros(orbit.n, dtype=torch.float64) for orbit in analysis.orbits}
    return {orbit.key: zeros[orbit.key] + total[orbit.atom.id] for orbit in analysis.orbits}


def learned_tensors(analysis: Analysis) -> Iterator[tuple[nn.Parameter, list[Axis]]]:
    """Iterate over the parameters with their axes, tied ones once."""
    seen: set[Tensor] = set()
    for vertex in analysis.dag.inner_vertices:
        relation = analysis.relations.get(vertex.name)
        for name, axes in () if relation is None else relation.parameters.items():
            tensor = getattr(vertex.module, name)
            if isinstance(tensor, nn.Parameter) and tensor not in seen:
                seen.add(tensor)
                yield tensor, axes


def pulled_back(axis: Axis, positions: Tensor) -> dict[int, Tensor]:
    """Return the gradient of ``<positions, mask(axis)>`` with respect to the mask of each atom, where masks are 1."""
    inside = atoms(axis)
    if not inside:
        return {}
    with torch.inference_mode(mode=False), torch.enable_grad():  # whatever the caller has switched off
        masks = {atom.id: torch.ones(atom.n, dtype=positions.dtype, requires_grad=True) for atom in inside}
        gradients = torch.autograd.grad(mask(axis, masks) @ positions.clone(), list(masks.values()))
    return {atom.id: gradient for atom, gradient in zip(inside, gradients, strict=True)}
