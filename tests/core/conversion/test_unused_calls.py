"""Calls whose result the model does not return: they stay where they change what the model keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class Counting(nn.Module):
    """An atomic module with state of its own."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        self.mean.lerp_(x.detach().mean(0), 0.1)
        return self.fc(x)


class Net(nn.Module):
    def __init__(self, layer, function):
        super().__init__()
        self.fc, self.layer, self.function = nn.Linear(4, 4), layer, function

    def forward(self, x):
        return self.function(self.layer, self.fc(x))


def never(layer, x):
    layer(x)
    return x * 2


def only_in_evaluation(layer, x):
    y = layer(x)
    return x * 2 if layer.training else y


def only_in_training(layer, x):
    y = layer(x)
    return y if layer.training else x * 2


def twice(layer, x):
    layer(x)
    return layer(x * 2)


def through_others(layer, x):
    torch.relu(layer(x)) + 1
    return x * 2


USES = [never, only_in_evaluation, only_in_training, twice, through_others]
LAYERS = {
    "batch norm": lambda: nn.BatchNorm1d(4),
    "cumulative batch norm": lambda: nn.BatchNorm1d(4, momentum=None),
    "batch norm with an activation": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
}


def rows(batch):
    return torch.randn(batch, 4)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", LAYERS)
def test_statistics_are_updated_whether_the_result_is_read_or_not(reloaded, name, use):
    model = Net(LAYERS[name](), use)
    dag = reloaded(model, rows, relative=1e-6)
    assert dag.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("use", USES)
def test_the_state_of_an_atomic_module_is_updated(faithful, use):
    faithful(Net(Counting(), use), rows, relative=1e-6, atomic_modules=(Counting,))


def test_statistics_of_instances(faithful):
    def use(layer, x):
        return never(layer, x.view(-1, 1, 4).expand(-1, 3, 4))

    faithful(Net(nn.InstanceNorm1d(3, track_running_stats=True), use), rows, relative=1e-6)


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4, track_running_stats=False)])
def test_nothing_else_stays(faithful, layer):
    dag = faithful(Net(layer, never), rows, batches=(2, 5))
    assert [type(vertex.module).__name__ for vertex in dag.inner_vertices] == ["Linear", "Mul"]


def test_what_stays_survives_surgery(faithful):
    dag = faithful(Net(nn.BatchNorm1d(4), never), rows)
    count = len(dag)
    dag.remove_dead_vertices()
    assert len(dag) == count
