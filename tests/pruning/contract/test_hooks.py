"""Pruning's own hooks, used by a plugin as its author would, and by one that means harm."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import PluginWarning
from torch_dag_core.plugins.loading import list_plugins
from torch_dag_pruning.analysis.analysis import analyze, axis_rules
from torch_dag_pruning.errors import AnalysisError
from torch_dag_pruning.plan.criteria import criterion_named

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
