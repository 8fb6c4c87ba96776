"""`torch.export` sees the parameters of the source model."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


OLD = torch.__version__ < "2.14"
STRICT = [False, pytest.param(True, marks=pytest.mark.skipif(OLD, reason="stops at a forward that is no function"))]


def batch():
    return torch.export.Dim("batch", min=2, max=64)


@pytest.mark.parametrize("strict", STRICT)
@pytest.mark.parametrize("by_name", [True, False])
def test_dynamic_shapes_go_by_the_parameters_of_the_model(dag, images, strict, by_name):
    shapes = {"x": {0: batch()}} if by_name else ({0: batch()},)
    program = torch.export.export(dag, (images,), dynamic_shapes=shapes, strict=strict)
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), dag(x))
    assert set(program.state_dict) == {name for name, _ in [*dag.named_parameters(), *dag.named_buffers()]}


def test_the_signature_is_that_of_the_model(model, dag):
    assert list(inspect.signature(dag.forward).parameters) == list(inspect.signature(model.forward).parameters)
    dag.train()
    assert list(inspect.signature(dag.forward).parameters) == ["x", "y"]


class Nested(nn.Module):
    def forward(self, pair, *, scale):
        return pair[0] * scale["by"] + pair[1]


def test_nested_and_keyword_arguments():
    def arguments(count):
        return (tuple(torch.randn(count, 3) for _ in range(2)),), {"scale": {"by": torch.randn(count, 3)}}

    model = Nested()
    dag = build_from_unstructured_module(model, arguments(2))
    args, kwargs = arguments(3)
    size = batch()
    shapes = {"pair": ({0: size}, {0: size}), "scale": {"by": {0: size}}}
    program = torch.export.export(dag, args, kwargs, dynamic_shapes=shapes)
    args, kwargs = arguments(7)
    torch.testing.assert_close(program.module()(*args, **kwargs), model(*args, **kwargs))


def test_graphs_made_by_hand_have_numbered_parameters():
    dag = DagModule()
    first, second = dag.add_input("a"), dag.add_input("b")
    dag.set_output(dag.add_vertex("bilinear", nn.Bilinear(3, 3, 2), [first, second]))
    assert list(inspect.signature(dag.forward).parameters) == ["x0", "x1"]
    size = batch()
    program = torch.export.export(dag, (torch.randn(3, 3),) * 2, dynamic_shapes=({0: size}, {0: size}))
    x = torch.randn(6, 3)
    torch.testing.assert_close(program.module()(x, x), dag(x, x))


def test_an_exported_graph_inside_a_model(dag, images):
    model = nn.Sequential(dag, nn.Linear(5, 2))
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch()},))
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), model(x))


def test_forward_follows_edits_and_modes(dag, images):
    before = dag.forward(images)
    dag.replace_module(dag.get_vertex_by_name("block.relu"), nn.Tanh())
    assert not torch.equal(dag.forward(images), before)
    assert isinstance(dag.train().forward(images), tuple)


def test_forward_may_be_replaced_on_one_graph(dag, images):
    before, original = dag(images), dag.forward
    dag.forward = lambda x: original(x) * 2
    assert torch.equal(dag(images), before * 2)
    del dag.forward
    assert torch.equal(dag(images), before)


def test_a_subclass_may_call_the_forward_it_overrides(dag, images):
    class Doubled(DagModule):
        def forward(self, x):
            return super().forward(x) * 2

    before = dag(images)
    dag.__class__ = Doubled
    assert torch.equal(dag(images), before * 2)
