"""Importance by weights alone, beyond their norms."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis, atoms, membership
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.criteria import learned_tensors, pulled_back

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit

_SCALED = frozenset({f"core.batch_norm{dims}d" for dims in (1, 2, 3)})


@dataclass(frozen=True)
class BatchNormScale:
    """Size of the scale that batch norms multiply a slot by, summed over them (network slimming, arXiv:1708.06519)."""

    name: str = "bn_scale"

    def score(self, analysis: Analysis) -> dict[str, Tensor]:
        """Return the sums.

        Raises:
            PlanError: an orbit has no batch norm with a scale.
        """
        total: dict[int, Tensor] = {}
        for vertex in analysis.dag.inner_vertices:
            relation = analysis.relations.get(vertex.name)
            if relation is not None and "weight" in relation.parameters and _is_batch_norm(analysis, vertex):
                weight = getattr(vertex.module, "weight").detach().abs().to("cpu", torch.float64)  # noqa: B009
                for atom, share in pulled_back(relation.parameters["weight"][0], weight).items():
                    total[atom] = total.get(atom, torch.zeros(())) + share
        for orbit in analysis.orbits:
            if orbit.atom.id not in total:
                message = f"orbit {orbit.key!r} has no batch norm with a scale; choose another criterion"
                raise PlanError(message)
        return {orbit.key: total[orbit.atom.id] for orbit in analysis.orbits}


def _is_batch_norm(analysis: Analysis, vertex: InnerVertex) -> bool:
    spec = analysis.registry.for_module(vertex.module)
    return spec is not None and spec.key in _SCALED


@dataclass(frozen=True)
class GeometricMedian:
    """Sum of the distances of a slot's weights to those of all slots of its orbit (FPGM, arXiv:1811.00250)."""

    name: str = "fpgm"

    def score(self, analysis: Analysis) -> dict[str, Tensor]:
        """Return the sums."""
        squares: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
        orbits = {orbit.atom.id: orbit for orbit in analysis.orbits}
        for tensor, axes in learned_tensors(analysis):
            values = tensor.detach().to("cpu", torch.float64)
            for dim, axis in enumerate(axes):
                for atom in atoms(axis):
                    if atom.id in orbits:
                        squares[atom.id] = squares[atom.id] + _distances(values, dim, axis, orbits[atom.id])
        zeros = {orbit.key: torch.zeros(orbit.n, orbit.n, dtype=torch.float64) for orbit in analysis.orbits}
        return {orbit.key: (zeros[orbit.key] + squares[orbit.atom.id]).sqrt().sum(1) for orbit in analysis.orbits}


def _distances(values: Tensor, dim: int, axis: Axis, orbit: Orbit) -> Tensor:
    """Return the squared distances between all pairs of slots along one dimension of a tensor."""
    places = membership(axis, orbit.atom).T.nonzero()[:, 1].reshape(orbit.n, -1)
    rows = values.movedim(dim, 0)[places].flatten(1)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
