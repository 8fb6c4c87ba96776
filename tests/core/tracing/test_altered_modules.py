"""Modules that are called with tensors other than their own, compiled models, and TorchScript."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError


class Pair(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(6, 6), nn.Linear(6, 6), function

    def forward(self, x):
        return self.function(self.first, self.second, x)


def rows(batch):
    return torch.randn(batch, 6)


def with_computed(first, second, x):
    return functional_call(first, {"weight": first.weight * 2, "bias": second.bias}, (x,)) + first(x)


def with_anothers(first, second, x):
    return functional_call(first, dict(second.named_parameters()), (x,))


def with_inputs(first, second, x):
    return functional_call(first, {"bias": second(x).mean(0)}, (x,))


def by_assignment(first, second, x):
    weight = first.weight
    del first._parameters["weight"]
    first.weight = weight * second.bias
    y = first(x)
    del first.weight
    first.weight = weight
    return y


@pytest.mark.parametrize("function", [with_computed, with_anothers, with_inputs, by_assignment])
def test_a_module_computes_with_the_tensors_that_it_is_given(reloaded, function):
    reloaded(Pair(function), rows, relative=1e-6)


def test_a_shared_module_keeps_its_own_tensors_elsewhere(faithful):
    dag = faithful(Pair(with_computed), rows, relative=1e-6)
    assert sum(isinstance(vertex.module, nn.Linear) for vertex in dag.inner_vertices) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["whole", "part", "in place"])
def test_compiled_models_convert_as_if_they_were_not(reloaded, how):
    layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    if how == "in place":
        layers.compile(backend="eager")
    model = layers if how == "in place" else torch.compile(layers, backend="eager")
    dag = reloaded(nn.Sequential(model, nn.Tanh()) if how == "part" else model, rows)
    assert [type(vertex.module) for vertex in dag.inner_vertices][:2] == [nn.Linear, nn.ReLU]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("place", ["the model", "'0'"])
@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, torch.randn(2, 6))])
def test_torchscript_is_refused(make, place):
    script = make(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    model = script if place == "the model" else nn.Sequential(script)
    for atomic in ((), (type(script),)):
        with pytest.raises(TraceError, match=f"{place} is a TorchScript module, .* use the module that it was made of"):
            build_from_unstructured_module(model, rows(2), atomic_modules=atomic)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("make", [nn.LazyLinear, lambda width: nn.Sequential(nn.ReLU(), nn.LazyLinear(width))])
def test_lazy_modules_are_refused_until_they_have_sizes(make):
    model = make(3)
    with pytest.raises(TraceError, match=r"(the model|'1') is a LazyLinear without sizes yet; call the model once"):
        build_from_unstructured_module(model, rows(2))
    x = rows(5)
    wanted = model(x)
    assert torch.equal(build_from_unstructured_module(model, rows(2))(x), wanted)


class Packs(nn.Module):
    def forward(self, x):
        return nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True).data


def test_what_needs_data_is_told_a_way_out():
    with pytest.raises(TraceError, match=r"at .*: RuntimeError: .*; register the enclosing module as atomic .* if it"):
        build_from_unstructured_module(Packs(), torch.randn(2, 5, 4))
