"""Copies of modules are those of `copy.deepcopy`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.copying import deep_copy


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.tied = self.fc
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.register_parameter("none", None)
        self.table = self.alias = {"sizes": [1, 2], "again": self.fc.weight}
        self.empty = self.same = []
        self.sizes, self.pair = (1, 2.0, "x"), ([1], self.fc)
        self.register_forward_hook(lambda module, args, output: output)


class Counted(nn.Linear):
    made = 0

    def __deepcopy__(self, memo):
        Counted.made += 1
        twin = Counted(self.in_features, self.out_features)
        twin.load_state_dict(self.state_dict())
        return twin


class Slotted(nn.Linear):
    __slots__ = ("extra",)


class Forgetful(nn.Linear):
    def __getstate__(self):
        return {**super().__getstate__(), "cache": None}


def slotted():
    module = Slotted(2, 2)
    module.extra = [1]
    return module


def forgetful():
    module = Forgetful(2, 2)
    module.cache = torch.ones(3)
    return module


MODULES = {
    "linear": lambda: nn.Linear(2, 3), "convolution": lambda: nn.Conv2d(2, 2, 3, padding="same"),
    "batch norm": lambda: nn.BatchNorm2d(3).eval(), "lstm": lambda: nn.LSTM(2, 3), "attention": lambda:
    nn.MultiheadAttention(4, 2), "sequence": lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "stateful": Stateful,
    "slotted": slotted, "forgetful": forgetful,
}  # fmt: skip


def described(value):
    """Return the content of a value, without the identities of what is in it."""
    if isinstance(value, torch.Tensor):
        return (type(value), value.tolist(), value.requires_grad)
    if isinstance(value, nn.Module):
        return (type(value), described(vars(value)))
    if isinstance(value, dict):
        return (type(value), {key: described(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return (type(value), [described(item) for item in value])
    return type(value) if callable(value) else repr(value)


@pytest.mark.parametrize("name", MODULES)
def test_a_copy_has_what_deepcopy_copies(name):
    module = MODULES[name]()
    twin, expected = deep_copy(module, {}), copy.deepcopy(module)
    assert described(twin) == described(expected)
    assert getattr(twin, "extra", None) == getattr(expected, "extra", None)
    tensors = [*module.parameters(), *module.buffers()]
    assert all(a is not b for a, b in zip(tensors, (*twin.parameters(), *twin.buffers()), strict=True))


def test_ties_inside_and_between_copies_stay():
    module, known = Stateful(), {}
    twin = deep_copy(module, known)
    assert twin.fc is twin.tied is twin.pair[1]
    assert twin.table is twin.alias
    assert twin.table["again"] is twin.fc.weight
    assert twin.empty is twin.same
    assert twin.empty is not module.empty
    assert deep_copy(module.fc, known) is twin.fc
    assert deep_copy(module.fc.weight, known) is twin.fc.weight


def test_a_class_that_copies_itself_is_asked():
    twin = deep_copy(nn.Sequential(Counted(2, 2)), {})
    assert Counted.made == 1
    assert type(twin[0]) is Counted
