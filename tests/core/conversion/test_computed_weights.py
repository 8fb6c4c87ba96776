"""Functions whose weights are computed: from parameters, from buffers that follow training, or from inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError


class Net(nn.Module):
    def __init__(self, layer, function):
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x):
        return self.function(self.layer, x)


def rows(batch):
    return torch.randn(batch, 3)


def images(batch):
    return torch.randn(batch, 3, 8, 8)


def tokens(batch):
    return torch.randint(0, 10, (batch, 4))


def standardized(weight):
    dims = tuple(range(1, weight.dim()))
    return (weight - weight.mean(dims, keepdim=True)) / (weight.std(dims, keepdim=True) + 1e-5)


def by_batch_norm(weight):
    flat = weight.reshape(1, weight.shape[0], -1)
    return functional.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(weight)


FUNCTIONS = {
    "table": (lambda: nn.Embedding(10, 3), lambda m, x: functional.embedding(x, m.weight * 2), tokens),
    "table with a padding row": (
        lambda: nn.Embedding(10, 3), lambda m, x: functional.embedding(x, m.weight * 2, padding_idx=1), tokens,
    ),
    "table with a padding row from the end": (
        lambda: nn.Embedding(10, 3), lambda m, x: functional.embedding(x, m.weight * 2, -1), tokens,
    ),
    "table of unit rows": (
        lambda: nn.Embedding(10, 3), lambda m, x: functional.embedding(x, functional.normalize(m.weight)), tokens,
    ),
    "table as it is": (lambda: nn.Embedding(10, 3), lambda m, x: functional.embedding(x, m.weight), tokens),
    "bags": (lambda: nn.Embedding(10, 3), lambda m, x: functional.embedding_bag(x, m.weight * 2), tokens),
    "linear": (lambda: nn.Linear(3, 4), lambda m, x: functional.linear(x, m.weight * 2, m.bias), rows),
    "linear with a computed bias": (
        lambda: nn.Linear(3, 4), lambda m, x: functional.linear(x, m.weight, m.bias * 2), rows,
    ),
    "linear from the inputs": (
        lambda: nn.Linear(3, 12), lambda m, x: functional.linear(x, m(x.mean(0)).view(4, 3)), rows,
    ),
    "linear transposed": (lambda: nn.Linear(4, 3), lambda m, x: functional.linear(x, m.weight.T), rows),
    "bilinear": (
        lambda: nn.Bilinear(3, 3, 4), lambda m, x: functional.bilinear(x, x, m.weight * 2, m.bias), rows,
    ),
    "slopes": (lambda: nn.PReLU(3), lambda m, x: functional.prelu(x, m.weight.abs()), rows),
    "convolution": (
        lambda: nn.Conv2d(3, 4, 3), lambda m, x: functional.conv2d(x, m.weight * 2, m.bias, padding=1), images,
    ),
    "convolution of equal size": (
        lambda: nn.Conv2d(3, 4, 3), lambda m, x: functional.conv2d(x, m.weight * 2, m.bias, padding="same"), images,
    ),
    "transposed convolution": (
        lambda: nn.ConvTranspose2d(3, 4, 3),
        lambda m, x: functional.conv_transpose2d(x, m.weight * 2, m.bias, 2, 1, 1),
        images,
    ),
    "standardized weights": (
        lambda: nn.Conv2d(3, 4, 3), lambda m, x: functional.conv2d(x, standardized(m.weight), m.bias), images,
    ),
    "weights standardized by a batch norm": (
        lambda: nn.Conv2d(3, 4, 3), lambda m, x: functional.conv2d(x, by_batch_norm(m.weight), m.bias), images,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_computed_weights_keep_their_keys(reloaded, name):
    layer, function, inputs = FUNCTIONS[name]
    model = Net(layer(), function)
    dag = reloaded(model, inputs, relative=1e-6)
    assert dag.state_dict().keys() <= model.state_dict().keys()


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = standardized(self.weight)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


WRAPPED = {
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(3, 4)), rows),
    "weight norm of a convolution": (lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), images),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(3, 4)), rows),
    "spectral norm of a convolution": (lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), images),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(3, 3)), rows),
    "orthogonal by the Cayley map": (
        lambda: parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley"), rows,
    ),
    "old weight norm": (lambda: weight_norm(nn.Linear(3, 4)), rows),
    "old weight norm of a convolution": (lambda: weight_norm(nn.Conv2d(3, 4, 3)), images),
    "old spectral norm": (lambda: spectral_norm(nn.Linear(3, 4)), rows),
    "old spectral norm of a convolution": (lambda: spectral_norm(nn.Conv2d(3, 4, 3)), images),
    "weight standardization": (lambda: Standardized(3, 4, 3, padding=1), images),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("place", ["alone", "inside"])
@pytest.mark.parametrize("name", WRAPPED)
def test_normalized_weights_keep_their_keys(reloaded, name, place):
    layer, inputs = WRAPPED[name]
    model = layer() if place == "alone" else nn.Sequential(layer(), nn.ReLU())
    dag = reloaded(model, inputs, relative=1e-5)
    assert dag.state_dict().keys() <= model.state_dict().keys()


def test_a_table_renormalized_in_place_is_refused():
    model = Net(nn.Embedding(10, 3), lambda m, x: functional.embedding(x, m.weight, max_norm=1.0))
    with pytest.raises(TraceError, match="embedding writes into an argument that it does not return"):
        build_from_unstructured_module(model, tokens(2))


def test_a_recurrence_with_computed_weights_is_refused():
    model = nn.Sequential(parametrizations.weight_norm(nn.LSTM(3, 4, batch_first=True), "weight_hh_l0"))
    with pytest.raises(TraceError, match=r"'lstm', called in module '0' .*is no op of the vocabulary"):
        build_from_unstructured_module(model, torch.randn(2, 5, 3))
