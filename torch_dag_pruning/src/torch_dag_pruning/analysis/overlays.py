"""Orbits as sets of vertices that pictures show together."""

from __future__ import annotations

from collections.abc import Iterator

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.graph_formats import Overlay
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.analysis.orbits import Orbit


def orbit_overlays(dag: DagModule) -> Iterator[Overlay]:
    """Yield one overlay for each orbit of a graph; none if the graph does not know any input sizes.

    Analysis opens composite ops, so that a place may lie inside a vertex of the graph: it is shown at that vertex.
    """
    if not dag.input_spec.knows_sizes:
        return
    for orbit in analyze(dag).orbits:
        least = f", at least {orbit.minimum}" if orbit.minimum else ""
        yield Overlay(orbit.key, f"{orbit.n} slots{least}", tuple(_places(dag, orbit)))


def _places(dag: DagModule, orbit: Orbit) -> Iterator[tuple[str, str]]:
    for place in orbit.places:
        name = place.vertex
        while name and name not in dag:
            name = name.rpartition(".")[0]
        yield name or place.vertex, str(place)
