from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.errors import TraceError


def rows(batch):
    return torch.randn(batch, 6)


def test_a_call_may_read_more_tensors_in_training(faithful):
    class Longer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            x = self.fc(x)
            return torch.stack([x, x + 1, x * 2] if self.training else [x, x + 1]).sum(0)

    faithful(Longer(), rows)


def test_a_property_may_be_another_one_in_training(faithful):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            x = self.fc(x).view(-1, 2, 3)
            return (x.mT if self.training else x.transpose(1, 2)).sum(1)

    faithful(Turned(), rows)


def test_other_places_of_a_tensor_in_training_are_refused(faithful):
    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            x = self.fc(x)
            index = torch.tensor([0, 1])
            return x[([0, 1], index) if self.training else (index, [0, 1])]

    with pytest.raises(TraceError, match="takes other tensors in training than in evaluation"):
        faithful(Placed(), rows)


def test_a_weight_that_the_model_returns_stays_a_parameter(faithful):
    class Shown(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return functional.linear(x, self.fc.weight, self.fc.bias) * 1, self.fc.weight * 1, self.fc.weight

    dag = faithful(Shown(), rows)
    assert {"fc.weight", "fc.bias"} <= dag.state_dict().keys()


def test_layers_called_by_keyword_are_layers(faithful):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return functional.linear(input=x, weight=self.fc.weight, bias=self.fc.bias)

    faithful(Named(), rows)
