"""Randomised models: every parameter differs from what it was, whatever its size."""

from __future__ import annotations

import torch
from torch import nn

from torch_dag_core.testing import awaken


def test_parameters_and_statistics_are_randomised_the_same_for_a_seed():
    first, second, other = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(3))
    second.load_state_dict(first.state_dict())
    other.load_state_dict(first.state_dict())
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    awaken(first, seed=1)
    awaken(second, seed=1)
    awaken(other, seed=2)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
        if name != "1.num_batches_tracked":
            assert not torch.equal(tensor, other.state_dict()[name])
            assert not torch.equal(tensor, before[name])


def test_parameters_without_elements_stay():
    model = nn.Linear(3, 2)
    model.none = nn.Parameter(torch.empty(0, 5, 2))
    assert awaken(model).none.shape == (0, 5, 2)
