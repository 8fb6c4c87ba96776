"""A layered layout of a directed graph (Sugiyama, Tagawa and Toda, 1981).

Each node lies one layer below the lowest of its sources. An edge over several layers runs through a placeholder in each
layer between. Layers are ordered by barycentres; then every item is moved to the mean of its neighbours, as far as the
distances within its layer allow, which is a least-squares problem that pooling adjacent violators solves exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

ROUNDS = 8
PLACEHOLDER_WIDTH = 8.0
PLACEHOLDER_WEIGHT = 0.1
"""How much an edge that passes by matters where it and a node want one place."""
GAP = 16.0
"""Between the borders of neighbours in a layer."""
LONGEST = 40
"""Layers that an edge may span; with a bound on it, the number of placeholders is linear in the number of nodes."""


class Link(NamedTuple):
    """An edge of a layout.

    Attributes:
        source: Position of a node.
        target: Position of a node.
        value: What flows; links with one source and one value share their placeholders.
    """

    source: int
    target: int
    value: int = 0


@dataclass
class Layers:
    """A graph cut into layers.

    Attributes:
        widths: Of nodes, followed by placeholders.
        ranks: The layer of each item.
        layers: Items from left to right, by layer from top to bottom.
        above: Items that each item is joined to in the layer above.
        below: The same of the layer below.
        paths: The items that each link runs through, from its source to its target; empty for a link that runs upwards
            or spans too many layers, for which there is no place in the layers.
        x: Center of each item.
    """

    widths: list[float]
    ranks: list[int]
    layers: list[list[int]] = field(default_factory=list)
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)
    x: list[float] = field(default_factory=list)


def layered(widths: Sequence[float], links: Sequence[Link], first: Collection[int], last: Collection[int]) -> Layers:
    """Lay out a graph, in time that is linear in its size apart from sorting.

    Args:
        widths: Of the nodes, which are in topological order as far as there is one.
        links: Edges between them.
        first: Nodes that fill the first layer. What they do not lead to, such as a chain that prepares a constant, is
            placed next to what reads it.
        last: Nodes that fill the last layer.
    """
    layout = Layers(list(widths), _ranks(len(widths), links, first, last))
    layout.layers = [[] for _ in range(max(layout.ranks, default=-1) + 1)]
    for node, rank in enumerate(layout.ranks):
        layout.layers[rank].append(node)
    layout.above, layout.below = [[] for _ in widths], [[] for _ in widths]
    threads: dict[tuple[int, int], list[int]] = {}
    for link in links:
        layout.paths.append(_threaded(layout, link, threads.setdefault((link.source, link.value), [link.source])))
    _order(layout)
    _place(layout, len(widths))
    return layout


def _ranks(count: int, links: Sequence[Link], first: Collection[int], last: Collection[int]) -> list[int]:
    """Return the length of the longest path to each node; what ``first`` does not lead to lies above its readers."""
    reached, ending = set(first), set(last)
    ranks = [0 if node in reached or not reached else 1 for node in range(count)]
    downwards = [link for link in links if link.source < link.target and link.target not in ending]
    for link in sorted(downwards, key=lambda link: link.target):
        ranks[link.target] = max(ranks[link.target], ranks[link.source] + 1)
        if link.source in reached:
            reached.add(link.target)
    lowest: dict[int, int] = {}
    for link in sorted(downwards, key=lambda link: link.source, reverse=True):
        lowest[link.source] = min(lowest.get(link.source, count), ranks[link.target] - 1)
        if link.source not in reached:
            ranks[link.source] = lowest[link.source]
    bottom = max((rank for node, rank in enumerate(ranks) if node not in ending), default=-1) + 1
    return [bottom if node in ending else rank for node, rank in enumerate(ranks)]


def _threaded(layout: Layers, link: Link, thread: list[int]) -> list[int]:
    """Return the items that a link runs through; lengthen the thread of its value where that is too short."""
    first, last = layout.ranks[link.source], layout.ranks[link.target]
    if not 0 < last - first <= LONGEST:
        return []
    for rank in range(first + len(thread), last):
        layout.ranks.append(rank)
        layout.widths.append(PLACEHOLDER_WIDTH)
        layout.above.append([])
        layout.below.append([])
        thread.append(len(layout.widths) - 1)
        layout.layers[rank].append(thread[-1])
        _join(layout, thread[-2], thread[-1])
    path = thread[: last - first]
    _join(layout, path[-1], link.target)
    return [*path, link.target]


def _join(layout: Layers, upper: int, lower: int) -> None:
    layout.below[upper].append(lower)
    layout.above[lower].append(upper)


def _order(layout: Layers) -> None:
    """Order each layer by the mean position of its neighbours, downwards and upwards in turn."""
    position = {item: place for layer in layout.layers for place, item in enumerate(layer)}
    for number in range(ROUNDS):
        neighbours = layout.below if number % 2 else layout.above
        for layer in reversed(layout.layers) if number % 2 else layout.layers:
            means = {item: _mean([position[n] for n in neighbours[item]], position[item]) for item in layer}
            layer.sort(key=means.__getitem__)
            position.update({item: place for place, item in enumerate(layer)})


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _place(layout: Layers, nodes: int) -> None:
    """Move the items of each layer towards their neighbours, downwards and upwards in turn."""
    layout.x = [0.0] * len(layout.widths)
    for layer in layout.layers:
        _settle(layout, layer, [0.0] * len(layer), nodes)
    for number in range(ROUNDS):
        neighbours = layout.below if number % 2 else layout.above
        for layer in reversed(layout.layers) if number % 2 else layout.layers:
            wishes = [_wish(layout, item, neighbours[item], nodes) for item in layer]
            _settle(layout, layer, wishes, nodes)


def _wish(layout: Layers, item: int, neighbours: Sequence[int], nodes: int) -> float:
    """Return the middle of the nodes next to an item, or else of the placeholders."""
    close = [other for other in neighbours if other < nodes] or neighbours
    return _mean([layout.x[other] for other in close], layout.x[item])


def _settle(layout: Layers, layer: Sequence[int], wishes: Sequence[float], nodes: int) -> None:
    """Place a layer's items as close to their wishes as their order and distances allow, in least squares."""
    offsets = [0.0]
    for left, right in pairwise(layer):
        offsets.append(offsets[-1] + (layout.widths[left] + layout.widths[right]) / 2 + GAP)
    blocks: list[tuple[float, float, int]] = []  # weighted sum, weight and number of the wishes of items that touch
    for item, wish, offset in zip(layer, wishes, offsets, strict=False):
        weight, count = (1.0 if item < nodes else PLACEHOLDER_WEIGHT), 1
        total = (wish - offset) * weight
        while blocks and blocks[-1][0] / blocks[-1][1] > total / weight:
            earlier = blocks.pop()
            total, weight, count = total + earlier[0], weight + earlier[1], count + earlier[2]
        blocks.append((total, weight, count))
    starts = [total / weight for total, weight, count in blocks for _ in range(count)]
    for item, start, offset in zip(layer, starts, offsets, strict=False):
        layout.x[item] = start + offset
