"""Axis rule of calls of torch functions by name: that of the function (`torch_dag_pruning.rules.calls`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from torch_dag_core.plugins.declarations import gather
from torch_dag_pruning.axes.relation import Context, Relation, Rule, axis_rule
from torch_dag_pruning.rules import calls
from torch_dag_pruning.rules.calls.declaration import FunctionRule
from torch_dag_pruning.rules.touching import NO_RULE, all_frozen


@cache
def function_rules() -> Mapping[str, Rule]:
    """Return the rule of every torch function that has one, by the name that ``TorchCall`` gives it."""
    return {name: declared.rule for declared in gather(calls.__name__, FunctionRule) for name in declared.names}


@axis_rule("core.torch_call")
def torch_call(ctx: Context) -> Relation:
    """Apply the rule of the function; without one, freeze everything that the call touches (O16)."""
    rule = function_rules().get(ctx.module.function)
    return all_frozen(ctx, NO_RULE) if rule is None else rule(ctx)
