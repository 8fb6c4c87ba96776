"""Finding patterns in a graph, and rewriting them until none is left.

A `Pattern` describes a vertex and, through its operands, the vertices before it; `find` lists its matches. A `Rule`
is a pattern with a function that edits the graph at a match, and `rewrite` applies rules until none of them fires.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from torch_dag_core.errors import RewriteLimitError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.patterns.matching import Match, Pattern, anything, chain
from torch_dag_core.plugins.calling import defining_distribution, errors_attributed_to

__all__ = ["Match", "Pattern", "RewriteResult", "Rule", "anything", "chain", "find", "rewrite"]

_RECENT = 100


def find(dag: DagModule, pattern: Pattern, *, disjoint: bool = False) -> list[Match]:
    """List the matches, at most one per root, in topological order of the roots. O(n) for a given pattern.

    Args:
        dag: The graph; nested graphs are not entered.
        pattern: What to look for.
        disjoint: Leave out matches that share a vertex in `Match.vertices` with an earlier match.
    """
    require_graphs("find()", dag)
    matches: list[Match] = []
    taken: set[Vertex] = set()
    for vertex in dag.inner_vertices:
        match = pattern.match(vertex)
        if match is None or (disjoint and not taken.isdisjoint(match.vertices)):
            continue
        taken.update(match.vertices)
        matches.append(match)
    return matches


@dataclass(frozen=True)
class Rule:
    """An edit to make where a pattern matches.

    Attributes:
        pattern: Where the rule may fire.
        rewrite: Called with the match and the graph; edits the graph and returns whether it changed anything.
        name: Shown in the error when rules never stop firing; the name of the function by default.
    """

    pattern: Pattern
    rewrite: Callable[[Match, DagModule], bool]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", getattr(self.rewrite, "__name__", type(self.rewrite).__name__))


@dataclass(frozen=True)
class RewriteResult:
    """What `rewrite` did: whether it changed anything, and how many times a rule fired."""

    changed: bool
    steps: int

    def __bool__(self) -> bool:
        return self.changed


def rewrite(dag: DagModule, rules: Rule | Iterable[Rule], *, max_steps: int = 10_000) -> RewriteResult:
    """Apply rules in place until none fires; earlier rules are tried first. Nearly linear in vertices plus steps.

    Vertices are visited in topological order. After each step, the vertices near the edited ones are visited again, and
    when none is left, all vertices once more, so that the result is a fixed point of every rule.

    Raises:
        RewriteLimitError: rules fired more than ``max_steps`` times. The graph is valid, but not a fixed point.
        PluginError: a rule that is defined in a plugin raised; the message names the rule and the distribution.
    """
    require_graphs("rewrite()", dag)
    return _Driver(dag, (rules,) if isinstance(rules, Rule) else tuple(rules), max_steps).run()


class _Driver:
    def __init__(self, dag: DagModule, rules: Sequence[Rule], max_steps: int) -> None:
        self.dag = dag
        self.rules = rules
        self.max_steps = max_steps
        self.by_op: dict[type[nn.Module], tuple[Rule, ...]] = {}
        self.reach = max((rule.pattern.height for rule in rules), default=1) - 1
        self.queue: deque[InnerVertex] = deque()
        self.queued: set[Vertex] = set()
        self.recent: deque[str] = deque(maxlen=_RECENT)
        self.steps = 0

    def run(self) -> RewriteResult:
        """Visit all vertices until a whole round changes nothing."""
        before = -1
        while self.steps != before:
            before = self.steps
            self._enqueue(self.dag.inner_vertices)
            self._drain()
        return RewriteResult(changed=self.steps > 0, steps=self.steps)

    def _drain(self) -> None:
        while self.queue:
            vertex = self.queue.popleft()
            self.queued.discard(vertex)
            if self._present(vertex):
                self._visit(vertex)

    def _visit(self, vertex: InnerVertex) -> None:
        """Fire the first rule that changes something, and queue the vertices whose matches may have changed."""
        for rule in self._rules_for(type(vertex.module)):
            edited = self._try(rule, vertex)
            if edited is not None:
                self._requeue({vertex: True, **edited})
                return

    def _try(self, rule: Rule, vertex: InnerVertex) -> Mapping[Vertex, bool] | None:
        """Return the vertices that a rule edits where it matches a vertex, or None if it changes nothing."""
        try:
            match = rule.pattern.match(vertex)
            return None if match is None else self._fire(rule, match)
        except Exception:
            # Looked up only here: a rule does not say which plugin it comes from.
            with errors_attributed_to(defining_distribution(rule.rewrite), f"the rewrite {rule.name!r}"):
                raise

    def _rules_for(self, op: type[nn.Module]) -> tuple[Rule, ...]:
        rules = self.by_op.get(op)
        if rules is None:
            rules = tuple(rule for rule in self.rules if rule.pattern.ops is None or op in rule.pattern.ops)
            self.by_op[op] = rules
        return rules

    def _fire(self, rule: Rule, match: Match) -> Mapping[Vertex, bool] | None:
        """Return the edited vertices, or None if the rule changed nothing."""
        version = self.dag._version
        with self.dag.recording() as edited:
            changed = rule.rewrite(match, self.dag)
        if not changed and version == self.dag._version:
            return None
        self.steps += 1
        self.recent.append(rule.name)
        if self.steps > self.max_steps:
            raise RewriteLimitError(sorted(set(self.recent)), self.max_steps)
        return edited

    def _requeue(self, edited: Mapping[Vertex, bool]) -> None:
        """Queue the vertices whose matches may have changed: edited ones, and those within reach that depend on them.

        A vertex that only gained or lost uses can change matches only through ``single_use``. Its users are therefore
        queued only if it has a single use, so that an edit near a widely read vertex does not queue the whole graph.

        Args:
            edited: The edited vertices, each with whether more than its uses changed.
        """
        level = [vertex for vertex, itself in edited.items() if itself or len(vertex._uses) == 1]
        self._enqueue(level)
        for _ in range(self.reach):
            level = list(dict.fromkeys(user for vertex in level for user in vertex.successors))
            self._enqueue(level)

    def _enqueue(self, vertices: Iterable[Vertex]) -> None:
        for vertex in vertices:
            if vertex not in self.queued and isinstance(vertex, InnerVertex) and self._present(vertex):
                self.queued.add(vertex)
                self.queue.append(vertex)

    def _present(self, vertex: Vertex) -> bool:
        return vertex.name in self.dag and self.dag.get_vertex_by_name(vertex.name) is vertex
