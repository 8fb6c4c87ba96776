"""What a pattern is, and how it is matched against one vertex."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType

from torch import nn

from torch_dag_core.graph.vertex import InnerVertex, Vertex

Ops = type[nn.Module] | Iterable[type[nn.Module]]


class Pattern:
    """A condition on one vertex and, through ``operands``, on the vertices that it reads.

    Attributes:
        ops: The exact classes that the vertex's module may have; None accepts any vertex, inputs included.
        operands: One pattern per operand; empty if any operands are accepted.
        height: The number of vertices on the longest path through the pattern.
    """

    def __init__(
        self, ops: Ops | None, *operands: Pattern, name: str | None = None,
        where: Callable[[Vertex], bool] | None = None, commutative: bool = False, single_use: bool = False,
    ) -> None:  # fmt: skip
        """Describe a vertex.

        Args:
            ops: Module class or classes, matched exactly: a subclass of Conv2d is another op. None is any vertex.
            operands: Patterns of all operands in order; leave them out to accept any.
            name: Captures the vertex in `Match.captures`. The same name twice asks for the same vertex twice.
            where: A further condition on the vertex.
            commutative: The operands may come in any order.
            single_use: The vertex must have exactly one use. Vertices that a rewrite removes usually need this.
        """
        self.ops = None if ops is None else frozenset([ops] if isinstance(ops, type) else ops)
        self.operands = operands
        self.name = name
        self.where = where
        self.commutative = commutative
        self.single_use = single_use
        self.height: int = 1 + max((operand.height for operand in operands), default=0)

    def match(self, vertex: Vertex) -> Match | None:
        """Return the first match rooted at ``vertex``, or None."""
        return _Search(self, vertex).run()

    def accepts(self, vertex: Vertex) -> bool:
        """Tell whether the vertex itself fits, whatever its operands."""
        if self.ops is not None and (not isinstance(vertex, InnerVertex) or type(vertex.module) not in self.ops):
            return False
        if self.single_use and len(vertex._uses) != 1:
            return False
        if self.operands and len(self.operands) != len(vertex.predecessors):
            return False
        return self.where is None or self.where(vertex)

    def arrangements(self) -> Iterable[Sequence[Pattern]]:
        """Iterate over the orders in which the operands may come."""
        return permutations(self.operands) if self.commutative else (self.operands,)

    def __repr__(self) -> str:
        ops = "None" if self.ops is None else " | ".join(sorted(op.__name__ for op in self.ops))
        options = {"commutative": self.commutative, "single_use": self.single_use}
        shown = [f"name={self.name!r}"] if self.name else []
        shown += [f"{option}=True" for option, on in options.items() if on]
        return f"Pattern({', '.join([ops, *map(repr, self.operands), *shown])})"


def anything(name: str | None = None, *, where: Callable[[Vertex], bool] | None = None) -> Pattern:
    """Return a pattern for any vertex, inputs included."""
    return Pattern(None, name=name, where=where)


def chain(*ops: Ops, **named: Ops) -> Pattern:
    """Return the pattern of a chain of one-operand vertices, first op first; all but the last have a single use.

    The vertices of keyword arguments are captured under their keywords.

    >>> chain(nn.Conv2d, nn.BatchNorm2d, act=nn.ReLU)
    Pattern(ReLU, Pattern(BatchNorm2d, Pattern(Conv2d, single_use=True), single_use=True), name='act')
    """
    steps = [*((None, op) for op in ops), *named.items()]
    if not steps:
        message = "a chain needs at least one module class"
        raise ValueError(message)
    pattern: tuple[Pattern, ...] = ()
    for position, (name, op) in enumerate(steps):
        pattern = (Pattern(op, *pattern, name=name, single_use=position < len(steps) - 1),)
    return pattern[0]


@dataclass(frozen=True)
class Match:
    """Where a pattern was found.

    Attributes:
        root: The vertex that the outermost pattern matches.
        captures: The vertices of named patterns; ``match["name"]`` is short for it.
        vertices: The inner vertices that patterns with ``ops`` match, operands first; the root is last.
    """

    root: Vertex
    captures: Mapping[str, Vertex]
    vertices: tuple[InnerVertex, ...]

    def __getitem__(self, name: str) -> Vertex:
        return self.captures[name]


_Goals = tuple[Pattern, Vertex, "_Goals"] | None


class _Search:
    """Depth-first search with an explicit stack of alternatives, so that patterns may be arbitrarily deep."""

    def __init__(self, pattern: Pattern, root: Vertex) -> None:
        self.root = root
        self.goals: _Goals = (pattern, root, None)
        self.trail: list[tuple[Pattern, Vertex, str | None]] = []
        self.captures: dict[str, Vertex] = {}
        self.alternatives: list[tuple[_Goals, int]] = []

    def run(self) -> Match | None:
        """Return the first solution."""
        while self.goals is not None:
            pattern, vertex, rest = self.goals
            if self._bind(pattern, vertex):
                self._descend(pattern, vertex, rest)
            elif not self._backtrack():
                return None
        body = dict.fromkeys(vertex for pattern, vertex, _ in reversed(self.trail) if pattern.ops is not None)
        vertices = tuple(vertex for vertex in body if isinstance(vertex, InnerVertex))
        return Match(self.root, MappingProxyType(self.captures), vertices)

    def _bind(self, pattern: Pattern, vertex: Vertex) -> bool:
        if not pattern.accepts(vertex):
            return False
        known = self.captures.get(pattern.name) if pattern.name else None
        if known is not None and known is not vertex:
            return False
        fresh = pattern.name if known is None else None
        if fresh:
            self.captures[fresh] = vertex
        self.trail.append((pattern, vertex, fresh))
        return True

    def _descend(self, pattern: Pattern, vertex: Vertex, rest: _Goals) -> None:
        options: list[_Goals] = []
        for arrangement in pattern.arrangements():
            goals = rest
            for operand, predecessor in zip(arrangement, vertex.predecessors, strict=False):
                goals = (operand, predecessor, goals)
            options.append(goals)
        self.goals = options[0]
        self.alternatives += [(goals, len(self.trail)) for goals in reversed(options[1:])]

    def _backtrack(self) -> bool:
        if not self.alternatives:
            return False
        self.goals, length = self.alternatives.pop()
        for _, _, fresh in self.trail[length:]:
            if fresh:
                del self.captures[fresh]
        del self.trail[length:]
        return True
