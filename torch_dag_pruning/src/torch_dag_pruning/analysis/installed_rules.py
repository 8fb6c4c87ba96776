"""The axis rules of the core and of all plugins, by the keys that the registry knows ops by."""

from __future__ import annotations

from collections.abc import Iterator

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.calling import errors_attributed_to
from torch_dag_core.plugins.loading import add_hookspecs, by_key, default_registry
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning import hookspecs
from torch_dag_pruning.axes.relation import AxisRule, Context, Relation, Rule, rules_by_key
from torch_dag_pruning.axes.stand_in import Emptied, StandIn
from torch_dag_pruning.rules import core_rules


def axis_rules(registry: Registry | None = None) -> dict[str, Rule]:
    """Return the rule of every op that has one, by key; plugins cannot replace those of the core or of each other.

    Args:
        registry: The vocabulary, which knows the older keys of ops; that of the installed plugins by default.
    """
    registry = registry or default_registry()
    own = rules_by_key(core_rules())
    return own | {key: _blamed(owner, key, rule.rule) for key, owner, rule in _added(registry)}


def stand_ins(registry: Registry | None = None) -> dict[str, StandIn]:
    """Return the stand-in of every op that has one, by key; arguments as for `axis_rules`."""
    registry = registry or default_registry()
    own = {key: rule.stand_in for rule in core_rules() for key in rule.keys if rule.stand_in is not None}
    return own | {
        key: _blamed_stand_in(owner, key, rule.stand_in)
        for key, owner, rule in _added(registry)
        if rule.stand_in is not None
    }


def _added(registry: Registry) -> Iterator[tuple[str, str, AxisRule]]:
    """Iterate over the rules of plugins, with the key of the op and the distribution of the plugin."""
    add_hookspecs(hookspecs)

    def current_keys(rule: AxisRule) -> tuple[str, ...]:
        specs = ((key, registry.find(key)) for key in rule.keys)
        return tuple(key if spec is None else spec.key for key, spec in specs)

    taken = {key for rule in core_rules() for key in rule.keys}
    for key, (owner, rule) in by_key("torch_dag_axis_rules", AxisRule, current_keys, taken=taken).items():
        yield key, owner, rule


def _blamed(owner: str, key: str, rule: Rule) -> Rule:
    """Return the rule of a plugin, whose errors name its distribution."""

    def call(ctx: Context) -> Relation:
        with errors_attributed_to(owner, f"the axis rule of {key!r}"):
            return rule(ctx)

    return call


def _blamed_stand_in(owner: str, key: str, stand_in: StandIn) -> StandIn:
    """Return the stand-in of a plugin, whose errors name its distribution."""

    def call(graph: Emptied, vertex: InnerVertex, empty: set[int]) -> InnerVertex | None:
        with errors_attributed_to(owner, f"the stand-in of {key!r}"):
            return stand_in(graph, vertex, empty)

    return call
