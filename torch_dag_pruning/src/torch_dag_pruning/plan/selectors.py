r"""Naming parts of a graph: vertices and orbits by name, glob, regular expression, module class or role.

A selector is one of

- a class of modules: all vertices with such a module;
- ``"layer1"``: the vertex of that name, and all vertices inside the module of that name;
- ``"blocks.*.attn"``: the same for all names that the pattern (`fnmatch`) fits;
- ``"re:blocks\.[0-3]\."``: all vertices with names in which the regular expression is found;
- ``"class:Conv2d"``: all vertices whose module has that class or a subclass, or whose op has that key
  (``"class:core.conv2d"``);
- ``"@stem"``: the learned layers that no learned layer comes before; ``"@head"``: those that none comes after;
- ``"conv1.weight:0"``: one dimension of one parameter; patterns are allowed here too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeAlias

from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_pruning.analysis.propagation import nested_leaves
from torch_dag_pruning.axes import Axis, atoms
from torch_dag_pruning.errors import PlanError

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit

Selector: TypeAlias = str | type[nn.Module]


@dataclass(frozen=True)
class Parts:
    """The parts of an analysed graph that selectors name."""

    analysis: Analysis

    def touched(self, setting: str, selector: Selector) -> set[str]:
        """Return the keys of the orbits that a selected vertex reads, holds or returns slots of.

        Args:
            setting: Name of the setting that the selector is given for, for errors.
            selector: See the module.

        Raises:
            PlanError: the selector is wrong, or names nothing in the graph.
        """
        return self._orbits(setting, selector, self._touching)

    def made(self, setting: str, selector: Selector) -> set[str]:
        """Return the keys of the orbits whose slots selected vertices, and no others, make with learned weights.

        Args:
            setting: Name of the setting that the selector is given for, for errors.
            selector: See the module.

        Raises:
            PlanError: the selector is wrong, names nothing in the graph, or names no vertices that make slots alone.
        """
        keys = self._orbits(setting, selector, self._made_by)
        if not keys:
            message = (
                f"{setting}: {selector!r} names no layers that alone make channels that can be pruned; channels that "
                "others add to belong to all of them, and can be named as a place such as 'conv1.weight:0'"
            )
            raise PlanError(message)
        return keys

    def _orbits(self, setting: str, selector: Selector, of_vertices: Callable[[set[str]], set[str]]) -> set[str]:
        if not isinstance(selector, str):
            _require_class(setting, selector)
            return of_vertices(self._found(setting, selector.__name__, self._of_class(selector)))
        if selector.startswith("re:"):
            return of_vertices(self._found(setting, selector, self._by_expression(setting, selector[len("re:") :])))
        if selector.startswith("class:"):
            return of_vertices(self._found(setting, selector, self._of_class_named(selector[len("class:") :])))
        if selector.startswith("@"):
            return of_vertices(self._found(setting, selector, self._in_role(setting, selector)))
        if ":" in selector:
            return self._found(setting, selector, self._at_place(selector))
        return of_vertices(self._found(setting, selector, (n for n in self._names if _is_inside(n, selector))))

    def _found(self, setting: str, selector: str, found: Iterable[str]) -> set[str]:
        names = set(found)
        if not names:
            close = difflib.get_close_matches(selector, self._names, n=3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            message = f"{setting}: nothing in the graph matches {selector!r}{hint}"
            raise PlanError(message)
        return names

    # Vertices --------------------------------------------------------------------------------------------------

    @cached_property
    def _modules(self) -> list[tuple[str, nn.Module]]:
        """The vertices of the analysed graph, and those that it was expanded from, with their modules."""
        graphs = (self.analysis.dag, self.analysis._original)
        return list(dict.fromkeys(pair for graph in graphs for pair in _vertices(graph)))

    @cached_property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._modules))

    def _inside(self, names: Iterable[str]) -> set[str]:
        """Return the names, and those of everything that a composite op or a nested graph was expanded to."""
        given = set(names)
        return {name for name in self._names if not given.isdisjoint(_lineage(name))}

    def _of_class(self, cls: type[nn.Module]) -> set[str]:
        return self._inside(name for name, module in self._modules if isinstance(module, cls))

    def _of_class_named(self, wanted: str) -> set[str]:
        found = self.analysis.registry.for_module
        keys = ((name, module, found(module)) for name, module in self._modules)
        return self._inside(
            name
            for name, module, spec in keys
            if wanted in [each.__name__ for each in type(module).__mro__] or (spec is not None and spec.key == wanted)
        )

    def _by_expression(self, setting: str, text: str) -> list[str]:
        try:
            expression = re.compile(text)
        except re.error as error:
            message = f"{setting}: {text!r} is no regular expression: {error}"
            raise PlanError(message) from error
        return [name for name in self._names if expression.search(name)]

    def _in_role(self, setting: str, selector: str) -> set[str]:
        if selector not in ROLES:
            message = f"{setting}: there is no role {selector!r}; there are {', '.join(ROLES)}"
            raise PlanError(message)
        return ROLES[selector](self.analysis)

    # Orbits ----------------------------------------------------------------------------------------------------

    @cached_property
    def _keys(self) -> dict[int, str]:
        return {orbit.atom.id: orbit.key for orbit in self.analysis.orbits}

    @cached_property
    def _by_vertex(self) -> dict[str, set[str]]:
        """The keys of the orbits in the operands, tensors and results of each vertex."""
        found = {}
        for name, relation in self.analysis.relations.items():
            operands = self.analysis._propagation.operands[name]
            read = [axis for operand in operands for axes in nested_leaves(operand) for axis in axes]
            own = [axis for axes in relation.parameters.values() for axis in axes]
            given = [axis for axes in relation.outputs for axis in axes]
            found[name] = self._keys_in([*map(self.analysis.solver.find, read), *own, *given])
        return found

    @cached_property
    def _makers(self) -> dict[str, set[str]]:
        """The vertices that make the slots of each orbit with learned weights."""
        makers: dict[str, set[str]] = {}
        for name, relation in self.analysis.relations.items():
            for key in self._keys_in(relation.learned):
                makers.setdefault(key, set()).add(name)
        return makers

    def _keys_in(self, axes: Iterable[Axis]) -> set[str]:
        return {self._keys[atom.id] for axis in axes for atom in atoms(axis) if atom.id in self._keys}

    def _touching(self, vertices: set[str]) -> set[str]:
        return set().union(*(self._by_vertex.get(name, set()) for name in vertices))

    def _made_by(self, vertices: set[str]) -> set[str]:
        return {key for key, makers in self._makers.items() if makers <= vertices}

    def _at_place(self, pattern: str) -> set[str]:
        return {orbit.key for orbit in self.analysis.orbits if any(fnmatchcase(t, pattern) for t in _places(orbit))}


def _require_class(setting: str, selector: object) -> None:
    if not (isinstance(selector, type) and issubclass(selector, nn.Module)):
        message = f"{setting} takes names, patterns and classes of modules, got {selector!r}"
        raise PlanError(message)


def _places(orbit: Orbit) -> Iterator[str]:
    yield orbit.key
    yield from map(str, orbit.places)


def _vertices(graph: DagModule, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Iterate over the vertices of a graph and of those nested in it, with their full names."""
    for vertex in graph.inner_vertices:
        yield prefix + vertex.name, vertex.module
        if isinstance(vertex.module, DagModule):
            yield from _vertices(vertex.module, f"{prefix}{vertex.name}.")


def _lineage(name: str) -> list[str]:
    """Return a name and the names of the modules that it lies in: ``a.b.c`` gives ``a``, ``a.b`` and ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _is_inside(name: str, pattern: str) -> bool:
    return any(fnmatchcase(part, pattern) for part in _lineage(name))


def _stem(analysis: Analysis) -> set[str]:
    """Return the learned layers that no learned layer comes before."""
    return _outermost(analysis, analysis.dag.inner_vertices, lambda vertex: list(vertex.predecessors))


def _head(analysis: Analysis) -> set[str]:
    """Return the learned layers that no learned layer comes after."""
    return _outermost(analysis, reversed(analysis.dag.inner_vertices), lambda vertex: [u for u, _ in vertex.uses])


def _outermost(
    analysis: Analysis, ordered: Iterable[InnerVertex], neighbours: Callable[[InnerVertex], list[Vertex]]
) -> set[str]:
    """Return the learned layers that are met first when the vertices are walked in this order."""
    behind: set[Vertex] = set()
    found: set[str] = set()
    for vertex in ordered:
        is_behind = any(each in behind for each in neighbours(vertex))
        relation = analysis.relations.get(vertex.name)
        is_learned = relation is not None and bool(relation.learned)
        if is_learned and not is_behind:
            found.add(vertex.name)
        if is_learned or is_behind:
            behind.add(vertex)
    return found


ROLES: Final = {"@stem": _stem, "@head": _head}
