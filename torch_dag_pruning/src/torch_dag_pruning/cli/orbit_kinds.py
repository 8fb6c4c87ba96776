"""What the slots of an orbit are to people: channels, heads, dimensions of heads, groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch_dag_pruning.analysis.analysis import Analysis
from torch_dag_pruning.analysis.orbits import Orbit
from torch_dag_pruning.axes import Atom, Axis, Product, atoms

WIDTH, HEADS, HEAD_DIM = "width", "heads", "head dimension"
GROUPS, GROUP_WIDTH = "groups", "width of each group"
_ATTENTION = ("core.scaled_dot_product_attention", "core.matmul")
"""Ops that compare or mix activations along their last two dimensions, for each slot of those before."""


class OrbitKinds:
    """The kinds of the orbits of one analysis."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._batches: set[Atom] = set()
        self._contracted: set[Atom] = set()
        for vertex in analysis.dag.inner_vertices:
            spec = analysis.registry.for_module(vertex.module)
            if spec is not None and spec.key in _ATTENTION and vertex.name in analysis.relations:
                self._note(list(analysis.operand_axes(vertex.name, place)) for place in range(len(vertex.predecessors)))

    def _note(self, operands: Iterable[list[Axis]]) -> None:
        for axes in operands:
            self._batches |= {atom for axis in axes[:-2] for atom in atoms(axis)}
            self._contracted |= {atom for axis in axes[-2:] for atom in atoms(axis)}

    def __getitem__(self, orbit: Orbit) -> str:
        """Return the kind of an orbit, by the axis in which it occurs first."""
        place = orbit.places[0]
        axis = self._analysis.parameter_axes[f"{place.vertex}.{place.tensor}"][place.dim]
        product = next((each for each in _products(axis) if orbit.atom in each.children), None)
        if product is None:
            return WIDTH
        if orbit.atom in self._batches:
            return HEADS
        if orbit.atom in self._contracted:
            return HEAD_DIM
        free = [each for each in product.children if isinstance(each, Atom)]
        return GROUPS if free[0] == orbit.atom and len(product.children) > 1 else GROUP_WIDTH


def _products(axis: Axis) -> Iterator[Product]:
    """Iterate over the products in an axis, outermost first."""
    left = [axis]
    while left:
        each = left.pop()
        if isinstance(each, Product):
            yield each
        left += reversed(each.children)
