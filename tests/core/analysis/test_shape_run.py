"""Graphs run without data, against the same graphs run on data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_dag_core as td
from torch_dag_core.graph.values import Slot
from torch_dag_core.plugins.codecs import ClassCodec
from torch_dag_core.shape_run import ShapeRun


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.1)
        self.again, self.lstm, self.gate = nn.Conv2d(8, 8, 1), nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 5)
        self.register_buffer("places", torch.arange(0, 36, 3))

    def forward(self, x):
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        x = torch.cat([x, x * x.mean((2, 3), keepdim=True), torch.sigmoid(self.again(x))], 1)
        first, *_ = x.chunk(3, 1)
        tokens, (hidden, _) = self.lstm(first.flatten(2)[:, :, self.places].transpose(1, 2))
        return self.gate(tokens).softmax(-1) + hidden[0][:, None], tokens.half(), x.argmax(1).roll(1, 1)


@pytest.fixture(scope="module")
def dag():
    return td.build_from_unstructured_module(Net().eval(), torch.randn(2, 3, 8, 8))


def form(value):
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else tuple(map(form, value))


def blank(*shape):
    return torch.empty(shape, device="meta")


def graph_of(*modules):
    dag = td.DagModule()
    x = dag.add_input("x")
    vertices = [dag.add_vertex(f"v{place}", module, [x]) for place, module in enumerate(modules)]
    dag.set_outputs(tuple(map(Slot, range(len(vertices)))), vertices)
    return dag


def registry_with(cls):
    registry = td.default_registry().copy()
    registry.add(td.OpSpec(key="tests.op", target=cls, codec=ClassCodec(cls)), owner="tests")
    return registry


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_value_has_the_form_that_data_gives_it(dag, batch):
    values = ShapeRun(td.default_registry()).values(dag, [blank(batch, 3, 8, 8)])
    for vertex, value in td.interpret(dag, torch.randn(batch, 3, 8, 8)):
        if vertex.name != "output":
            assert form(values[vertex]) == form(value), vertex.name
    assert values.keys() == {*dag.input_vertices, *dag.inner_vertices}


def test_a_mask_selects_as_many_as_its_values_say():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(3, 2)
            self.register_buffer("mask", torch.tensor([True, False, True, True, False]))
            self.register_buffer("other", torch.tensor([False, False, True, True, True]))

        def forward(self, x):
            x = self.first(x)
            return self.second(x[:, self.mask]), x[:, self.mask & self.other], x.masked_fill(~self.mask, 0.0)

    dag = td.build_from_unstructured_module(Masked(), torch.randn(2, 5))
    values = ShapeRun(td.default_registry()).values(dag, [blank(4, 5)])
    for vertex, value in td.interpret(dag, torch.randn(4, 5)):
        if vertex.name != "output":
            assert form(values[vertex]) == form(value), vertex.name


def test_nothing_of_the_graph_changes(dag):
    dag.train()
    before = [(module, dict(vars(module)), dict(module._parameters), dict(module._buffers)) for module in dag.modules()]
    state = {name: tensor.clone() for name, tensor in dag.state_dict().items()}
    ShapeRun(td.default_registry()).values(dag, [blank(2, 3, 8, 8)])
    for module, attributes, parameters, buffers in before:
        assert all(vars(module)[name] is value for name, value in attributes.items())
        assert all(module._parameters[name] is tensor for name, tensor in parameters.items())
        assert all(module._buffers[name] is tensor for name, tensor in buffers.items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in dag.state_dict().items())
    dag.eval()


def test_equal_calls_are_made_once():
    class Counted(td.Op):
        times: int
        calls = 0
        fields = {"times": 1}  # noqa: RUF012

        def forward(self, x):
            Counted.calls += 1
            return x.repeat(self.times, 1)

    run = ShapeRun(registry_with(Counted))
    dag = graph_of(Counted(1), Counted(2), Counted(1), Counted(2))
    assert [run.values(dag, [blank(2, 3)])[vertex].shape[0] for vertex in dag.inner_vertices] == [2, 4, 2, 4]
    assert Counted.calls == 2
    run.values(dag, [blank(2, 3)])
    assert Counted.calls == 2
    run.values(dag, [blank(3, 3)])
    assert Counted.calls == 4


class Chosen(nn.Module):
    """An op whose buffer decides how much it returns."""

    def __init__(self, size):
        super().__init__()
        self.register_buffer("mask", torch.zeros(size, dtype=torch.bool))

    def config(self):
        return {"size": len(self.mask)}

    def forward(self, x):
        return x[:, self.mask.nonzero()[:, 0]] * 2


@pytest.mark.parametrize("registry", [td.default_registry(), registry_with(Chosen)], ids=["unknown", "registered"])
def test_buffers_keep_their_say(registry):
    few, many = Chosen(4), Chosen(4)
    few.mask[0], many.mask[1:] = True, True
    dag = graph_of(few, many, few)
    values = ShapeRun(registry).values(dag, [blank(2, 4)])
    assert [tuple(values[vertex].shape) for vertex in dag.inner_vertices] == [(2, 1), (2, 3), (2, 1)]
    assert all(values[vertex].is_meta for vertex in dag.inner_vertices)


def test_results_that_are_no_tensors_are_passed_on():
    class Mixed(nn.Module):
        def forward(self, x):
            return x * 2, [x, None, 3], {"x": x}

    dag = td.DagModule()
    mixed = dag.add_vertex("mixed", Mixed(), [dag.add_input("x")])
    dag.set_output(dag.add_vertex("first", td.default_registry().get("core.get_item").target(0), [mixed]))
    assert td.flops(dag, torch.ones(2, 3))["first"].outputs == ((2, 3),)


def test_a_nested_graph_gives_what_it_gives_flat(dag):
    nested = td.build_from_unstructured_module(Net().eval(), torch.randn(2, 3, 8, 8))
    nested.wrap_subgraph([nested.get_vertex_by_name(name) for name in ("conv", "norm")], name="stem")
    run = ShapeRun(td.default_registry())
    flat, found = (
        {vertex.name: form(value) for vertex, value in run.values(graph, [blank(2, 3, 8, 8)]).items()}
        for graph in (dag, nested)
    )
    assert found.pop("stem") == flat["norm"]
    assert found.items() <= flat.items()


def test_the_vertex_that_does_not_run_is_named():
    dag = graph_of(nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(td.InputError, match="vertex 'v1' cannot be run without data at these sizes: "):
        ShapeRun(td.default_registry()).values(dag, [blank(2, 5)])
    with pytest.raises(td.InputError, match="vertex 'v1'"):
        td.flops(dag, torch.ones(2, 5))
