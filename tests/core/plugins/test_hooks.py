"""Every hook, used by a plugin as its author would."""

from __future__ import annotations

import inspect
import sys

import click
import pytest
from torch import nn

from torch_dag_core.algorithms.algorithm import algorithms
from torch_dag_core.cli.coverage.check import CoverageCheck, Subject
from torch_dag_core.cli.coverage.library import find_library
from torch_dag_core.cli.references import load_model
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins import hookspecs
from torch_dag_core.plugins.graph_formats import GraphFormat, Overlay
from torch_dag_core.plugins.loading import (
    contributions,
    default_registry,
    first_answer,
    list_plugins,
    named_contributions,
)
from torch_dag_core.testing import CHECKS
from torch_dag_core.testing.collection import all_checks

HOOKS = [name for name, function in vars(hookspecs).items() if name.startswith("torch_dag_") and callable(function)]


def test_every_hook_is_documented_and_tested():
    tested = {name.removeprefix("test_hook_") for name in globals() if name.startswith("test_hook_")}
    assert tested == {name.removeprefix("torch_dag_") for name in HOOKS}
    assert all(inspect.getdoc(getattr(hookspecs, name)) for name in HOOKS)


def test_the_package_root_offers_hookimpl():
    import torch_dag_core

    assert torch_dag_core.hookimpl is hookspecs.hookimpl


def test_hook_ops(site, op_source):
    site.install("art", op_source("art.blur"))
    spec = default_registry().get("art.blur")
    assert default_registry().for_module(spec.target()) is spec
    assert [info.hooks for info in list_plugins() if info.name == "art"] == [("torch_dag_ops",)]


def test_hook_atomic_modules(site):
    source = """
    class Whole(nn.Module):
        pass

    @hookimpl
    def torch_dag_atomic_modules():
        return [AtomicSpec(target=Whole)]
    """
    site.install("art", source)
    registry = default_registry()
    whole = sys.modules["sample_module_art"].Whole
    assert registry.atomic_for(whole()).owner == "sample-art"
    assert registry.atomic_for(type("Part", (whole,), {})()) is None


def test_hook_normalizers(site):
    source = """
    @hookimpl
    def torch_dag_normalizers():
        yield Normalizer(functions=("torch.add",), normalize=lambda call: NotImplemented)
    """
    site.install("art", source)
    assert default_registry().normalizers_for("torch.add")[0].owner == "sample-art"


def test_hook_algorithms(site):
    source = """
    from dataclasses import dataclass
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec

    @dataclass(frozen=True)
    class Settings:
        strength: float = 0.5

    @hookimpl
    def torch_dag_algorithms():
        return [AlgorithmSpec(name="squeeze", summary="Makes it small.", config=Settings, create=list)]
    """
    site.install("art", source)
    assert algorithms()["squeeze"].config(strength=0.25).strength == 0.25


def test_hook_example_inputs(site):
    source = """
    @hookimpl
    def torch_dag_example_inputs(model):
        return (model.in_features,) if isinstance(model, nn.Linear) else None
    """
    site.install("art", source)
    assert first_answer("torch_dag_example_inputs", tuple, model=nn.Linear(3, 2)) == (3,)
    assert first_answer("torch_dag_example_inputs", tuple, model=nn.ReLU()) is None


def test_hook_model_source(site):
    source = """
    @hookimpl
    def torch_dag_model_source(reference, options):
        if reference == "art:line":
            return nn.Linear(options.get("width", 4), 2)
    """
    site.install("art", source)
    assert load_model("art:line").in_features == 4
    assert load_model("art:line", ["width=7"]).in_features == 7


def test_hook_commands(site):
    source = """
    import click

    @hookimpl
    def torch_dag_commands():
        return [click.Command("paint", callback=lambda: click.echo("painted"))]
    """
    site.install("art", source)
    assert named_contributions("torch_dag_commands", click.Command)["paint"].name == "paint"


def test_hook_graph_formats(site):
    source = """
    from torch_dag_core.plugins.graph_formats import GraphFormat

    @hookimpl
    def torch_dag_graph_formats():
        return [GraphFormat(".count", "a number", lambda dag, before: str(len(dag)))]
    """
    site.install("art", source)
    (found,) = [item for _, item in contributions("torch_dag_graph_formats", GraphFormat)]
    assert found.render(DagModule(), None) == "0"


def test_a_graph_format_has_a_suffix_and_a_function():
    with pytest.raises(TypeError, match=r"suffix of GraphFormat must be a suffix such as '.html', not 'html'"):
        GraphFormat("html", "a page", str)
    with pytest.raises(TypeError, match="render of GraphFormat must be callable"):
        GraphFormat(".html", "a page", None)
    with pytest.raises(TypeError, match="notebook of GraphFormat must be None or callable"):
        GraphFormat(".html", "a page", str, notebook="page")


def test_only_formats_that_fold_take_a_depth():
    plain = GraphFormat(".count", "a number", lambda dag, before: f"{dag} {before}")
    assert plain.drawn("graph", "before") == "graph before"
    with pytest.raises(InputError, match=r"a \.count file cannot be drawn to a depth; leave depth out"):
        plain.drawn("graph", depth=1)
    folds = GraphFormat(".count", "a number", lambda dag, before, depth: f"{dag} {before} {depth}", takes_depth=True)
    assert folds.drawn("graph", depth=1) == "graph None 1"


def test_hook_overlays(site):
    source = """
    from torch_dag_core.plugins.graph_formats import Overlay

    @hookimpl
    def torch_dag_overlays(dag):
        return [Overlay("all", f"{len(dag)} vertices", ())]
    """
    site.install("art", source)
    dag = DagModule()
    dag.add_input("x")
    assert ("sample-art", Overlay("all", "1 vertices", ())) in contributions("torch_dag_overlays", Overlay, dag=dag)


def test_hook_contract_checks(site):
    source = """
    from torch_dag_core.testing import ContractCheck

    @hookimpl
    def torch_dag_contract_checks():
        return [ContractCheck(name="shines", run=lambda case: None)]
    """
    site.install("art", source)
    assert [check.name for check in all_checks() if check not in CHECKS] == ["shines"]


def test_hook_model_lists(site):
    source = """
    from torch_dag_core.plugins.model_sources import ModelList

    @hookimpl
    def torch_dag_model_lists():
        return [ModelList(name="art", names=lambda: ["line", "circle"], distribution="sample-art")]
    """
    site.install("art", source)
    assert list(find_library("art").models()) == ["line", "circle"]
    assert find_library("torchvision").distributions == ("torchvision",)


def test_hook_coverage_checks(site):
    source = """
    from torch_dag_core.cli.coverage.check import CoverageCheck

    @hookimpl
    def torch_dag_coverage_checks():
        return [CoverageCheck("brightness", lambda subject: {"vertices": len(subject.dag.inner_vertices)})]
    """
    site.install("art", source)
    found = named_contributions("torch_dag_coverage_checks", CoverageCheck)["brightness"]
    dag = build_from_unstructured_module(nn.Linear(4, 2))
    assert found.run(Subject(dag, has_weights=True, keep=lambda *_: None)) == {"vertices": 1}


@pytest.mark.parametrize(("name", "run"), [("no name", len), ("name", None)])
def test_coverage_checks_are_checked(name, run):
    with pytest.raises(TypeError, match="of CoverageCheck must be"):
        CoverageCheck(name, run)


def test_a_plugin_is_asked_before_the_core(site):
    pytest.importorskip("torchvision")
    source = """
    @hookimpl
    def torch_dag_model_source(reference):
        if reference == "torchvision:resnet18":
            return nn.Identity()
    """
    site.install("art", source)
    assert isinstance(load_model("torchvision:resnet18"), nn.Identity)
