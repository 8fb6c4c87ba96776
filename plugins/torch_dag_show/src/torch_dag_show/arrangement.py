"""Where the boxes, modules and edges of a picture lie.

Each open module is laid out on its own, from the innermost to the whole graph. A value that crosses the border of a
module does so through a port: at the upper border, or where it leaves, at the lower one. Coordinates are in pixels,
from left to right and from top to bottom.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch_dag_show.layering import Layers, Link, layered

BETWEEN, PADDING, TITLE, LANE, TURN, PORT = 26.0, 12.0, 18.0, 8.0, 10.0, 8.0

Path = tuple[str, ...]
Point = tuple[float, float]


class Port(NamedTuple):
    """A place in the border of a module, for the value of the box ``value``."""

    side: Literal["in", "out"]
    value: int


Key = int | Path | Port
"""What a module contains: a box by its position, a module by its path, or a port of its own."""
Connection = tuple[Key, Key, int]
"""Where a value flows within one module, and the box that it comes from."""


@dataclass
class Area:
    """A rectangle."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Arrangement:
    """A picture: where each box lies, each open module from the outside in, and the points that each edge runs through.

    Edges are vertical at each of their points.
    """

    boxes: list[Area]
    modules: dict[Path, Area]
    edges: list[list[Point]]
    width: float
    height: float


@dataclass
class _Module:
    """An open module: what it contains and, once it is laid out, where that is relative to its upper left corner."""

    title: float = 0.0
    parts: list[Key] = field(default_factory=list)
    ports: dict[Port, None] = field(default_factory=dict)
    connections: dict[Connection, None] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0
    corners: dict[Key, Point] = field(default_factory=dict)
    routes: dict[Connection, list[Point]] = field(default_factory=dict)

    def at_border(self, side: str) -> list[Port]:
        """Return the ports of the upper ("in") or lower ("out") border."""
        return [port for port in self.ports if port.side == side]

    def offset(self, port: Port) -> float:
        """Return where a value crosses the border, relative to the middle of the module."""
        return self.corners[port][0] + PORT / 2 - self.width / 2


def arrange(
    sizes: Sequence[tuple[float, float]],
    paths: Sequence[Path],
    edges: Sequence[tuple[int, int]],
    inputs: Collection[int],
    letter: float,
) -> Arrangement:
    """Lay out a picture, in time that is linear in its size apart from sorting.

    Args:
        sizes: Width and height of each box, in topological order.
        paths: The modules that each box lies in, outermost first.
        edges: Pairs of positions of boxes.
        inputs: Boxes at the top.
        letter: Width of a letter in the titles of modules.
    """
    modules = _modules(paths, letter)
    crossings = [list(_crossings(edge, paths)) for edge in edges]
    for path, connection in (each for crossing in crossings for each in crossing):
        module = modules[path]
        module.connections[connection] = None
        module.ports.update((key, None) for key in connection[:2] if isinstance(key, Port))
    layout = _Layout(modules, sizes)
    for path in sorted(modules, key=len, reverse=True):
        layout.lay_out(modules[path], [] if path else inputs)
    return _absolute(layout, crossings)


def _modules(paths: Sequence[Path], letter: float) -> dict[Path, _Module]:
    modules: dict[Path, _Module] = {(): _Module()}
    for index, path in enumerate(paths):
        for end in range(1, len(path) + 1):
            if path[:end] not in modules:
                modules[path[:end]] = _Module(title=len(path[end - 1]) * letter + PADDING)
                modules[path[: end - 1]].parts.append(path[:end])
        modules[path].parts.append(index)
    return modules


def _crossings(edge: tuple[int, int], paths: Sequence[Path]) -> Iterator[tuple[Path, Connection]]:
    """Yield the modules that an edge runs through from its source to its target, each with its part of the edge."""
    source, target = edge
    above, below = paths[source], paths[target]
    shared = itertools.takewhile(lambda parts: parts[0] == parts[1], zip(above, below, strict=False))
    common = sum(1 for _ in shared)
    for end in range(len(above), common, -1):
        yield above[:end], (_part(source, above, end), Port("out", source), source)
    yield above[:common], (_part(source, above, common), _part(target, below, common), source)
    for end in range(common + 1, len(below) + 1):
        yield below[:end], (Port("in", source), _part(target, below, end), source)


def _part(box: int, path: Path, end: int) -> Key:
    """Return what the module ``path[:end]`` contains that holds a box."""
    return path[: end + 1] if end < len(path) else box


@dataclass(frozen=True)
class _Layout:
    """The layout of all modules, from the innermost to the whole graph."""

    modules: dict[Path, _Module]
    sizes: Sequence[tuple[float, float]]

    def size(self, key: Key) -> tuple[float, float]:
        """Return the width and height of a box, of a module that is laid out, or of a port."""
        if isinstance(key, int):
            return self.sizes[key]
        return (PORT, 0.0) if isinstance(key, Port) else (self.modules[key].width, self.modules[key].height)

    def lay_out(self, module: _Module, inputs: Collection[int]) -> None:
        """Place what a module contains, and the edges in it."""
        entries, exits = module.at_border("in"), module.at_border("out")
        keys: list[Key] = [*entries, *module.parts, *exits]
        index = {key: place for place, key in enumerate(keys)}
        links = [Link(index[source], index[target], value) for source, target, value in module.connections]
        extents = [self.size(key) for key in keys]
        first, last = [index[key] for key in (entries or inputs)], [index[key] for key in exits]
        layout = layered([width for width, _ in extents], links, first, last)
        bands = _bands(module, layout, [height for _, height in extents])
        _widen(module, layout)
        for key, x, rank, (width, height) in zip(keys, layout.x, layout.ranks, extents, strict=False):
            top, bottom = bands[rank]
            module.corners[key] = x - width / 2, (top + bottom - height) / 2
        for connection, path in zip(module.connections, layout.paths, strict=True):
            inner = [(layout.x[item], y) for item in path[1:-1] for y in bands[layout.ranks[item]]]
            source, target, value = connection
            start, end = self.attached(module, source, "out", value), self.attached(module, target, "in", value)
            lower, upper = bands[layout.ranks[index[source]]][1], bands[layout.ranks[index[target]]][0]
            module.routes[connection] = [start, (start[0], lower), *inner, (end[0], upper), end]
        _run_aside(module, [each for each, path in zip(module.connections, layout.paths, strict=True) if not path])

    def attached(self, module: _Module, key: Key, side: Literal["in", "out"], value: int) -> Point:
        """Return where a value enters or leaves something in a module."""
        (left, top), (width, height) = module.corners[key], self.size(key)
        offset = 0.0 if isinstance(key, int | Port) else self.modules[key].offset(Port(side, value))
        return left + width / 2 + offset, top + height if side == "out" else top


def _widen(module: _Module, layout: Layers) -> None:
    """Move everything to the right of the border, and set the width of the module."""
    left = min((x - width / 2 for x, width in zip(layout.x, layout.widths, strict=True)), default=0.0)
    right = max((x + width / 2 for x, width in zip(layout.x, layout.widths, strict=True)), default=0.0)
    lack = max(0.0, module.title - (right - left))
    layout.x = [x - left + PADDING + lack / 2 for x in layout.x]
    module.width = right - left + lack + 2 * PADDING


def _bands(module: _Module, layout: Layers, heights: Sequence[float]) -> list[tuple[float, float]]:
    """Return the upper and lower end of each layer, and set the height of the module."""
    entries, exits = ([(0.0, 0.0)] if module.at_border(side) else [] for side in ("in", "out"))
    bands = []
    y = TITLE if module.title else PADDING
    for layer in layout.layers[len(entries) : len(layout.layers) - len(exits)]:
        height = max((heights[item] for item in layer if item < len(heights)), default=0.0)
        bands.append((y, y + height))
        y += height + BETWEEN
    module.height = y - BETWEEN + PADDING
    return [*entries, *bands, *((module.height, module.height) for _ in exits)]


def _run_aside(module: _Module, connections: Sequence[Connection]) -> None:
    """Draw edges that have no place in the layers to the right of everything else."""
    lanes = _lanes([(module.routes[each][1][1], module.routes[each][2][1], each) for each in connections])
    for connection, lane in lanes.items():
        start, leaving, entering, end = module.routes[connection]
        x = module.width + lane * LANE
        turn = [(x, leaving[1] + TURN), (x, entering[1] - TURN)]
        module.routes[connection] = [start, leaving, *turn, entering, end]
    module.width += (max(lanes.values()) + 1) * LANE if lanes else 0.0


def _lanes(spans: Sequence[tuple[float, float, Connection]]) -> dict[Connection, int]:
    """Return a lane for each edge beside a module, such that those in one lane do not touch or carry the same value.

    Args:
        spans: Where each edge begins and ends from top to bottom, and the edge.
    """
    extents: dict[tuple[Key, int], tuple[float, float]] = {}
    for start, end, (source, _, value) in spans:
        top, bottom = extents.get((source, value), (start, start))
        extents[source, value] = min(top, start, end), max(bottom, start, end)
    used: list[tuple[float, int]] = []
    chosen: dict[tuple[Key, int], int] = {}
    for key, (top, bottom) in sorted(extents.items(), key=lambda item: item[1]):
        chosen[key] = heapq.heappop(used)[1] if used and used[0][0] < top else len(used)
        heapq.heappush(used, (bottom + BETWEEN, chosen[key]))
    return {connection: chosen[connection[0], connection[2]] for _, _, connection in spans}


def _absolute(layout: _Layout, crossings: Sequence[Sequence[tuple[Path, Connection]]]) -> Arrangement:
    """Move everything to coordinates of the whole picture."""
    modules = layout.modules
    areas: dict[Path, Area] = {(): Area(0.0, 0.0, *layout.size(()))}
    boxes = [Area(0.0, 0.0, *size) for size in layout.sizes]
    for path in sorted(modules, key=len):
        corner = areas[path]
        for key in modules[path].parts:
            left, top = modules[path].corners[key]
            area = boxes[key] if isinstance(key, int) else Area(0.0, 0.0, *layout.size(key))
            area.left, area.top = corner.left + left, corner.top + top
            if not isinstance(key, int | Port):
                areas[key] = area
    edges = [
        [
            (areas[path].left + x, areas[path].top + y)
            for path, connection in crossing
            for x, y in modules[path].routes[connection]
        ]
        for crossing in crossings
    ]
    whole = areas.pop(())
    return Arrangement(boxes, areas, edges, whole.width, whole.height)
