"""`torch.compile` and `torch.export` see a graph as one straight program."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()


def compiled(module, backend="eager", **options):
    return torch.compile(module, fullgraph=True, backend=backend, **options)


def test_a_fresh_graph_compiles_whole(dag, images):
    fast = compiled(dag)
    with torch.no_grad():
        assert torch.equal(fast(images), dag(images))


def test_an_edited_graph_compiles_whole(dag, images):
    dag(images)
    dag.replace_module(dag.get_vertex_by_name("block.relu"), nn.Tanh())
    fast = compiled(dag)
    with torch.no_grad():
        assert torch.equal(fast(images), dag(images))


def test_an_edit_after_compilation_is_seen(dag, images):
    fast = compiled(dag)
    before = fast(images)
    dag.replace_module(dag.get_vertex_by_name("block.relu"), nn.Tanh())
    after = fast(images)
    assert torch.equal(after, dag(images))
    assert not torch.equal(after, before)


def test_both_modes_compile_whole(dag, images):
    fast = compiled(dag)
    assert isinstance(fast(images), torch.Tensor)
    dag.train()
    torch.manual_seed(0)
    expected = dag(images)
    torch.manual_seed(0)
    for ours, theirs in zip(fast(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_through_a_compiled_graph(dag, images):
    fast = compiled(dag, "aot_eager")
    fast(images).sum().backward()
    compiled_gradients = {name: p.grad.clone() for name, p in dag.named_parameters() if p.grad is not None}
    dag.zero_grad()
    dag(images).sum().backward()
    for name, parameter in dag.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(compiled_gradients[name], parameter.grad)


def test_a_nested_graph_compiles_whole(dag, images):
    members = [vertex for vertex in dag.inner_vertices if vertex.name.startswith("block.")]
    before = dag(images)
    dag.wrap_subgraph(members, name="wrapped")
    assert torch.equal(compiled(dag)(images), before)


def test_a_graph_inside_a_model_compiles_whole(dag, images):
    model = nn.Sequential(dag, nn.Linear(5, 2))
    assert torch.equal(compiled(model)(images), model(images))


def test_one_compilation_serves_all_batch_sizes(dag):
    counter = torch._dynamo.testing.CompileCounter()
    fast = compiled(dag, counter, dynamic=True)
    with torch.no_grad():
        for batch in (2, 3, 7):
            x = torch.randn(batch, 3, 8, 8)
            torch.testing.assert_close(fast(x), dag(x))
    assert counter.frame_count == 1


def test_export_right_after_an_edit(dag, images):
    dag.replace_module(dag.get_vertex_by_name("block.relu"), nn.Tanh())
    program = torch.export.export(dag, (images,))
    torch.testing.assert_close(program.module()(images), dag(images))


def test_a_graph_with_state_compiles_whole():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    dag = build_from_unstructured_module(Counts(), torch.randn(2, 3))
    fast, x = compiled(dag), torch.ones(2, 3)
    assert [float(fast(x)[0, 0]) for _ in range(3)] == [1.0, 2.0, 3.0]
