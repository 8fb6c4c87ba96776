"""What all pictures show of a graph: vertices with costs and shapes, edges, and named sets of vertices."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from torch_dag_core.analysis.vertex_facts import VertexFacts, flattened, vertex_facts
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex, Vertex
from torch_dag_core.plugins.graph_formats import Overlay
from torch_dag_core.plugins.loading import contributions

_INSTALLED = re.compile(r"/\S*/site-packages/")
"""What the paths of installed packages begin with, which says something of a machine and nothing of a graph."""

INPUT, OUTPUT, LEARNED, PLAIN = "input", "output", "learned", "plain"


@dataclass(frozen=True)
class Node:
    """One vertex of a picture.

    Attributes:
        name: Its dotted name.
        op: Class of its module; empty for inputs and outputs.
        kind: `INPUT`, `OUTPUT`, `LEARNED` (it has parameters) or `PLAIN`.
        constants: What its module was made with, as text.
        shape: Sizes of the first tensor that it returns, such as ``1x64x56x56``; empty if they are not known.
        shape_before: The same in the graph to compare with, where it differs; else empty.
        flops: Floating-point operations for one sample.
        parameters: Elements of its parameters; those shared with an earlier vertex count there.
        home: Name of the module that it is drawn in; None means the one in its name. Later uses of a module without
            parameters, such as an activation that all layers share, are drawn where what they read is drawn.
    """

    name: str
    op: str
    kind: str
    constants: str = ""
    shape: str = ""
    shape_before: str = ""
    flops: int = 0
    parameters: int = 0
    home: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The modules that it is drawn in, outermost first, each as one part of its name."""
        module = self.name.rpartition(".")[0] if self.home is None else self.home
        return tuple(module.split(".")) if module else ()


@dataclass(frozen=True)
class Scene:
    """A graph as data for pictures. Edges are pairs of positions in ``nodes``; overlays name nodes alone."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    overlays: tuple[Overlay, ...]
    facts: Mapping[str, str]

    @property
    def flops(self) -> int:
        """Floating-point operations of all vertices."""
        return sum(node.flops for node in self.nodes)

    @cached_property
    def position(self) -> dict[str, int]:
        """The position of each node, by its name."""
        return {node.name: index for index, node in enumerate(self.nodes)}


def scene_of(dag: DagModule, before: DagModule | None = None, *, overlays: bool = True) -> Scene:
    """Collect what a picture shows. Runs the graph without data; changes nothing. Linear in the size of the graph.

    Args:
        dag: The graph; nested graphs are shown as groups.
        before: A graph to compare with, such as the one that was pruned; vertices are compared by their names.
        overlays: Whether to ask plugins for named sets of vertices, which takes them an analysis of the graph.

    Raises:
        InputError: the graph does not run at the sizes that it remembers.
    """
    require_graphs("a picture", dag, *(() if before is None else (before,)))
    flat = flattened(dag)
    vertices: list[Vertex] = [*flat.vertices, *flat.output_vertices]
    facts, earlier = _facts(flat), VertexFacts({}, {}, {}) if before is None else _facts(flattened(before))
    counted: set[int] = set()
    homes = _homes(vertices)
    nodes = tuple(replace(_node(vertex, facts, earlier.shapes, counted), home=homes.get(vertex)) for vertex in vertices)
    position = {vertex: index for index, vertex in enumerate(vertices)}
    edges = tuple(dict.fromkeys((position[p], position[vertex]) for vertex in vertices for p in vertex.predecessors))
    known = {node.name for node in nodes}
    sets = contributions("torch_dag_overlays", Overlay, dag=flat) if overlays else []
    named = tuple(_within(overlay, known) for _, overlay in sets)
    summary = dict(_summary(dag, facts, before, earlier))
    return Scene(str(dag.provenance.get("model", "graph")), nodes, edges, named, summary)


def _within(overlay: Overlay, known: Collection[str]) -> Overlay:
    """Return an overlay without the vertices that the graph does not have."""
    return replace(overlay, places=tuple(place for place in overlay.places if place[0] in known))


def _facts(dag: DagModule) -> VertexFacts:
    """Return the facts of a graph; none if it does not know any input sizes."""
    if not dag.input_spec.knows_sizes:
        return VertexFacts({}, {}, {})
    return vertex_facts(dag)


def _node(vertex: Vertex, facts: VertexFacts, earlier: Mapping[str, tuple[int, ...]], counted: set[int]) -> Node:
    shape, was = facts.shapes.get(vertex.name), earlier.get(vertex.name)
    text, before = _shown(shape), _shown(was) if was != shape else ""
    if not isinstance(vertex, InnerVertex):
        kind = OUTPUT if isinstance(vertex, OutputVertex) else INPUT
        return Node(vertex.name, "", kind, shape=text, shape_before=before)
    parameters = _parameters(vertex.module, counted)
    kind = LEARNED if any(True for _ in vertex.module.parameters()) else PLAIN
    op, constants = type(vertex.module).__name__, vertex.module.extra_repr()
    return Node(vertex.name, op, kind, constants, text, before, facts.flops.get(vertex.name, 0), parameters)


def _homes(vertices: Sequence[Vertex]) -> dict[Vertex, str]:
    """Return the module that each later use of a module without parameters is drawn in."""
    homes: dict[Vertex, str] = {}
    used: set[nn.Module] = set()
    for vertex in vertices:
        if not isinstance(vertex, InnerVertex):
            continue
        if vertex.module in used and vertex.predecessors and not any(True for _ in vertex.module.parameters()):
            operand = vertex.predecessors[0]
            homes[vertex] = homes.get(operand, operand.name.rpartition(".")[0])
        used.add(vertex.module)
    return homes


def _parameters(module: nn.Module, counted: set[int]) -> int:
    fresh: list[Tensor] = [parameter for parameter in module.parameters() if id(parameter) not in counted]
    counted.update(map(id, fresh))
    return sum(parameter.numel() for parameter in fresh)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "x".join(map(str, shape)) or "scalar"


def _summary(
    dag: DagModule, facts: VertexFacts, before: DagModule | None, earlier: VertexFacts
) -> Iterator[tuple[str, str]]:
    yield "vertices", f"{len(dag):,}"
    yield "parameters", _change(*(sum(p.numel() for p in each.parameters()) for each in (dag, before) if each))
    flops = sum(facts.flops.values())
    if flops:
        yield "FLOPs of one sample", _change(flops, None if before is None else sum(earlier.flops.values()))
    for assumption in dag.input_spec.assumptions:
        yield "holds where", str(assumption)
    for note in dag.input_spec.notes:
        yield "note", _INSTALLED.sub("", note)


def _change(now: int, before: int | None = None) -> str:
    return (
        f"{now:,}" if before is None else f"{now:,} of {before:,} ({now / before:.1%})" if before else f"{now:,} of 0"
    )
