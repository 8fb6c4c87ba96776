"""Pruning's own hooks, used by a plugin as its author would, and by one that means harm."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import PluginError, PluginWarning
from torch_dag_core.plugins.loading import list_plugins
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.analysis.installed_rules import axis_rules
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import AnalysisError, PlanError
from torch_dag_pruning.plan.known_criteria import criterion_named
from torch_dag_pruning.plan.plan import Plan

OP = """
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_pruning.axes.relation import AxisRule, Relation

class Double(nn.Module):
    def forward(self, x):
        return x + x

@hookimpl
def torch_dag_ops():
    return [OpSpec(key="art.double", target=Double, codec=ModuleCodec(Double))]

def rule(ctx):
    return Relation([list(ctx.inputs[0])])
"""
RULE = (
    OP
    + """
@hookimpl(optionalhook=True)
def torch_dag_axis_rules():
    return [AxisRule({keys}, rule)]
"""
)


def graph():
    import sample_module_art

    model = nn.Sequential(nn.Linear(4, 6), sample_module_art.Double(), nn.Linear(6, 2))
    return build_from_unstructured_module(model, torch.ones(2, 4))


def test_hook_axis_rules(site):
    site.install("art", RULE.format(keys="('art.double',)"))
    assert [orbit.n for orbit in analyze(graph()).orbits] == [6]


def test_an_op_without_a_rule_keeps_what_it_touches(site):
    site.install("art", OP)
    assert len(analyze(graph()).orbits) == 0


def test_hook_importance_criteria(site):
    source = """
    class Even:
        name = "even"

        def score(self, analysis):
            return {}

    @hookimpl(optionalhook=True)
    def torch_dag_importance_criteria():
        return [Even()]
    """
    site.install("art", source)
    assert criterion_named("even").name == "even"


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ("('core.linear',)", "adds the AxisRule 'core.linear', which torch-dag itself has"),
        ("'art.double'", "raised TypeError in torch_dag_axis_rules: keys of AxisRule must be a tuple"),
        ("()", "raised TypeError in torch_dag_axis_rules: keys of AxisRule must be a tuple of at least one"),
    ],
)
def test_a_rule_that_is_refused_leaves_the_others(site, keys, match):
    site.install("art", RULE.format(keys=keys))
    with pytest.warns(PluginWarning, match=rf"plugin 'art' \(sample-art 1.0\) .*{match}"):
        rules = axis_rules()
    assert rules["core.linear"].__module__.startswith("torch_dag_pruning.rules")
    assert [info.name for info in list_plugins() if info.error] == ["art"]


def test_a_rule_may_name_an_older_key(site):
    source = RULE.format(keys="('art.twice',)").replace(
        "codec=ModuleCodec(Double))", 'codec=ModuleCodec(Double), aliases=("art.twice",))'
    )
    site.install("art", source)
    assert "art.double" in axis_rules()
    assert [orbit.n for orbit in analyze(graph()).orbits] == [6]


def test_a_rule_of_the_core_is_not_replaced_by_an_older_key(site):
    site.install("art", RULE.format(keys="('core.re_lu',)"))
    with pytest.warns(PluginWarning, match="adds the AxisRule 'core.relu', which torch-dag itself has"):
        assert axis_rules()["core.relu"].__module__.startswith("torch_dag_pruning.rules")


SUM = """
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_pruning.axes.relation import AxisRule, Relation, Sink

class Total(nn.Module):
    def forward(self, x):
        return x.sum(-1, keepdim=True)

@hookimpl
def torch_dag_ops():
    return [OpSpec(key="art.total", target=Total, codec=ModuleCodec(Total))]

def rule(ctx):
    from torch_dag_pruning.axes import Fixed
    x = ctx.inputs[0]
    return Relation([[*x[:-1], Fixed(1)]], (Sink(0, (len(x) - 1,), (x[-1],)),))

def zeros(graph, vertex, empty):
    {body}

@hookimpl(optionalhook=True)
def torch_dag_axis_rules():
    return [AxisRule(("art.total",), rule, stand_in=zeros)]
"""


def emptied():
    """Return a graph whose only orbit, which a plugin's op sums over, is removed whole."""
    import sample_module_art

    model = nn.Sequential(nn.Linear(4, 6), sample_module_art.Total(), nn.Linear(1, 2))
    dag = build_from_unstructured_module(model, torch.ones(2, 4))
    analysis = analyze(dag)
    plan = Plan.keeping(analysis, {orbit.key: [] for orbit in analysis.orbits})
    return remove_channels(dag, plan, verify=True, analysis=analysis), model


def test_a_stand_in_of_a_plugin_is_asked(site):
    site.install("art", SUM.format(body="graph.fill(vertex, 0.0)"))
    smaller, model = emptied()
    assert torch.equal(smaller(torch.ones(2, 4)), model[2](torch.zeros(2, 1)))


def test_a_stand_in_that_raises_is_named(site):
    site.install("art", SUM.format(body="1 / 0"))
    with pytest.raises(PluginError, match=r"the stand-in of 'art\.total' of .sample-art. 1\.0 raised ZeroDivision"):
        emptied()


def test_a_rule_that_raises_is_named(site):
    site.install("art", RULE.format(keys="('art.double',)").replace("return Relation(", "return 1 / 0, Relation("))
    with pytest.raises(AnalysisError, match=r"the axis rule of .art\.double. of .sample-art. 1\.0 raised ZeroDivision"):
        analyze(graph())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = build_from_unstructured_module(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.ones(2, 4))
        assert [orbit.n for orbit in analyze(plain).orbits] == [6]


def test_a_criterion_cannot_replace_a_built_in_one(site):
    source = """
    class Fake:
        name = "l2"

        def score(self, analysis):
            return {}

    @hookimpl(optionalhook=True)
    def torch_dag_importance_criteria():
        return [Fake()]
    """
    site.install("art", source)
    with pytest.warns(PluginWarning, match="adds the ImportanceCriterion 'l2', which torch-dag itself has"):
        assert type(criterion_named("l2")).__name__ == "Magnitude"


def test_a_plugin_whose_criterion_gives_nan_is_named(site):
    source = """
    import torch

    class Broken:
        name = "broken"

        def score(self, analysis):
            return {orbit.key: torch.full((orbit.n,), torch.nan) for orbit in analysis.orbits}

    @hookimpl(optionalhook=True)
    def torch_dag_importance_criteria():
        return [Broken()]
    """
    site.install("art", source)
    dag = build_from_unstructured_module(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.ones(2, 4))
    with pytest.raises(PlanError, match=r"the criterion 'broken' of 'sample-art' .*gives slot 0 of orbit .* NaN"):
        Plan.by_importance(analyze(dag), "broken", 0.5)


def test_a_criterion_that_fails_is_named_with_its_plugin(site):
    source = """
    class Odd:
        name = "odd"

        def score(self, analysis):
            return {}["missing"]

    @hookimpl(optionalhook=True)
    def torch_dag_importance_criteria():
        return [Odd()]
    """
    site.install("art", source)
    dag = build_from_unstructured_module(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.ones(2, 4))
    with pytest.raises(
        PluginError, match=r"the criterion 'odd' of 'sample-art' 1.0 raised KeyError: 'missing'"
    ) as caught:
        Plan.by_importance(analyze(dag), criterion="odd", keep_flops=0.5)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.plugin == "sample-art"
