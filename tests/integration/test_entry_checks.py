"""Every public function that takes a graph says what to do with a model that was not converted."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import torch_dag_core as td

PACKAGES = (
    "torch_dag_core",
    "torch_dag_pruning",
    "torch_dag_block_pruning",
    "torch_dag_export",
    "torch_dag_llrc",
    "torch_dag_show",
    "torch_dag_hub",
)
MADE_BY_THE_LIBRARY = {"Analysis", "InnerVertex", "InputVertex", "Recovery", "Vertex"}
"""Classes whose instances users get, and do not make."""


def graph_parameters(function):
    """Return the names of the parameters that are graphs."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if str(p.annotation).removesuffix(" | None") == "DagModule"]


def entries(package):
    """Iterate over every public function, method and constructor of a package, by name."""
    module = pytest.importorskip(package)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield f"{package}.{name}", value
        elif inspect.isclass(value):
            for attribute, method in vars(value).items():
                constructs = attribute == "__init__" and name not in MADE_BY_THE_LIBRARY
                function = getattr(method, "__func__", method)
                if (constructs or not attribute.startswith("_")) and inspect.isfunction(function):
                    yield f"{package}.{name}.{attribute}", method


ENTRIES = {
    name: function
    for package in PACKAGES
    for name, function in entries(package)
    if graph_parameters(getattr(function, "__func__", function))
}


def call_with(function, **given):
    """Call a function with these arguments, and None for all others that it requires."""
    first = function.__get__(None, object) if isinstance(function, classmethod) else function
    parameters = inspect.signature(first).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return first(**{**{p.name: None for p in required}, **given})


@pytest.mark.parametrize("name", ENTRIES)
def test_models_are_to_be_converted_first(name):
    function = ENTRIES[name]
    dag = td.build_from_unstructured_module(nn.Linear(2, 2), torch.ones(2, 2))
    names = graph_parameters(getattr(function, "__func__", function))
    for wrong in names:
        graphs = {each: nn.ReLU() if each == wrong else dag for each in names}
        with pytest.raises(td.TorchDagError, match=r"DagModule.*, not a ReLU; convert (it|the model) first"):
            call_with(function, **graphs)


def test_the_walk_finds_functions_methods_and_constructors():
    found = {
        "torch_dag_core.flops",
        "torch_dag_core.AlgorithmSpec.start",
        "torch_dag_pruning.OneShotChannelPruning.__init__",
    }
    assert found <= set(ENTRIES)
    assert len(ENTRIES) > 25


def test_the_way_out_fits_what_was_given():
    dag = td.build_from_unstructured_module(nn.Linear(2, 2), torch.ones(2, 2))
    with pytest.raises(
        td.NotAGraphError, match=r"flops\(\) takes a DagModule, not a str; load it first: td.load\(path\)"
    ):
        td.flops("net.safetensors")
    with pytest.raises(td.NotAGraphError, match=r"not a DataParallel; it wraps one: pass its .module"):
        td.flops(nn.DataParallel(dag))
    with pytest.raises(TypeError, match=r"not a OptimizedModule; it wraps one: pass its ._orig_mod"):
        td.flops(torch.compile(dag))
