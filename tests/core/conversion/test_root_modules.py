"""A model that is itself an op, or an atomic module: one vertex, and the keys of the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.ops.arithmetic import Add
from torch_dag_core.ops.attention import Attention


def rows(*sizes):
    return lambda batch: torch.randn(batch, *sizes)


def tokens(batch):
    return torch.randint(0, 10, (batch, 4))


def sequences(batch):
    return tuple(torch.randn(batch, 5, 8) for _ in range(3))


OPS = {
    "linear": (lambda: nn.Linear(3, 4), rows(3)),
    "subclass of linear": (lambda: nn.modules.linear.NonDynamicallyQuantizableLinear(3, 4), rows(3)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3), rows(3, 8, 8)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 4, 3), rows(3, 8, 8)),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), lambda b: (torch.randn(b, 3), torch.randn(b, 4))),
    "activation": (lambda: nn.ReLU(inplace=True), rows(3)),
    "dropout": (nn.Dropout, rows(3)),
    "batch norm": (lambda: nn.BatchNorm2d(3), rows(3, 4, 4)),
    "embedding": (lambda: nn.Embedding(10, 3, padding_idx=0), tokens),
    "bag of embeddings": (lambda: nn.EmbeddingBag(10, 3), tokens),
    "lstm": (lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5), rows(5, 3)),
    "gru": (lambda: nn.GRU(3, 4, batch_first=True), rows(5, 3)),
    "lstm cell": (lambda: nn.LSTMCell(3, 4), rows(3)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True), sequences),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), rows(5, 8)),
    "decoder layer": (lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), lambda b: sequences(b)[:2]),
    "flatten": (nn.Flatten, rows(3, 4)),
    "identity": (nn.Identity, rows(3)),
    "nothing": (nn.Sequential, rows(3)),
}


@pytest.mark.parametrize("name", OPS)
def test_ops_convert_with_their_own_keys(reloaded, name):
    make_model, make_inputs = OPS[name]
    model = make_model()
    dag = reloaded(model, make_inputs, relative=1e-5)
    assert dag.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["linear", "transposed convolution", "lstm", "embedding", "dropout"])
def test_an_op_is_one_vertex_of_its_class(name):
    make_model, make_inputs = OPS[name]
    model = make_model()
    dag = build_from_unstructured_module(model, make_inputs(2))
    assert type(dag.inner_vertices[0].module) is type(model)


class Fc(nn.Module):
    """Decides on values, and holds a module of the name that its vertex would have."""

    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(3, 3), nn.Parameter(torch.randn(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x) * self.scale if x.sum() > 0 else x * self.scale


def test_an_atomic_model_is_one_vertex_with_its_own_keys(faithful):
    model = Fc()
    dag = faithful(model, rows(3), atomic_modules=(Fc,))
    assert [type(vertex.module) for vertex in dag.inner_vertices] == [Fc]
    assert dag.state_dict().keys() == model.state_dict().keys()
    dag.load_state_dict(model.state_dict())


def test_vertices_added_later_do_not_take_keys_of_the_model():
    dag = build_from_unstructured_module(nn.Linear(3, 3), torch.randn(2, 3))
    first = dag.inner_vertices[0]
    dag.set_output(dag.add_vertex("weight", nn.Linear(3, 3), [first]))
    state = dag.state_dict()
    assert sorted(state) == ["bias", "weight", "weight.bias", "weight.weight"]
    for value in state.values():
        value.fill_(2.0)
    dag.load_state_dict(state)
    assert all(bool((parameter == 2.0).all()) for parameter in dag.parameters())


def test_a_lone_tensor_of_the_name_of_a_key_has_the_key():
    dag = build_from_unstructured_module(nn.Linear(3, 3, bias=False), torch.randn(2, 3))
    first = dag.inner_vertices[0]
    lone = dag.add_vertex("weight", FreeParameter((3,), torch.float32, value=torch.ones(3)))
    dag.set_output(dag.add_vertex("sum", Add(), [first, lone]))
    state = {key: value.clone() for key, value in dag.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == {"weight": (3,), f"{first.name}.weight": (3, 3)}
    with torch.no_grad():
        for parameter in dag.parameters():
            parameter.zero_()
    dag.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in dag.state_dict().items())


def test_hooks_of_an_op_are_traced_through(faithful):
    model = nn.Linear(3, 4)
    model.register_forward_hook(lambda module, args, output: output * 2)
    faithful(model, rows(3))


def test_a_composite_op_on_its_own_is_taken_apart(reloaded):
    model = Attention(8, 2, 4, 8, scale=0.5)
    dag = reloaded(model, rows(5, 8), relative=1e-6)
    assert not any(isinstance(vertex.module, Attention) for vertex in dag.inner_vertices)
    assert dag.state_dict().keys() == model.state_dict().keys()
