from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_dag_core as td


class Gate(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class Sparse(nn.Module):
    def forward(self, x):
        return x + x.nonzero().shape[0]


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.fc, self.inner = nn.Linear(4, 4), inner

    def forward(self, x, *, scale=None):
        y = self.inner(self.fc(x))
        return y if scale is None else y * scale


class Net(nn.Module):
    def __init__(self, *inner):
        super().__init__()
        self.blocks = nn.ModuleList(map(Block, inner))
        self.head, self.unused = nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x, scale=x)
        return self.head(x)


def test_a_model_that_converts():
    report = td.find_unconvertible(Net(nn.ReLU(), nn.Tanh()), torch.randn(2, 4))
    assert report.converts
    assert not report.unconvertible
    assert {entry.name.rpartition(".")[2]: entry.status for entry in report.classes} == {
        "Linear": "op", "ReLU": "op", "Tanh": "op", "Block": "traced", "ModuleList": "traced", "Net": "traced",
    }  # fmt: skip
    assert "the model converts: 6 module classes" in str(report)


def test_only_the_innermost_cause_is_named_and_the_remedy_works():
    model = Net(nn.ReLU(), Gate(), Sparse(), Gate())
    report = td.find_unconvertible(model, torch.randn(2, 4))
    assert not report.converts
    found = {entry.name.rpartition(".")[2]: entry for entry in report.unconvertible}
    assert found.keys() == {"Gate", "Sparse"}
    assert (found["Gate"].count, found["Gate"].path) == (2, "blocks.1.inner")
    assert "depends on the data" in found["Gate"].reason
    assert f"{__file__}:{Gate.forward.__code__.co_firstlineno + 1}" in found["Gate"].reason
    assert set(report.remedy) == {Gate, Sparse}
    assert "the rest converts with atomic_modules=(" in str(report)
    td.build_from_unstructured_module(model, torch.randn(2, 4), atomic_modules=report.remedy)


def test_a_cause_in_the_model_itself_has_no_remedy():
    class Top(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x)[x[:, 0] > 0]

    report = td.find_unconvertible(Top(), torch.randn(2, 4))
    (entry,) = report.unconvertible
    assert entry.path == ""
    assert not report.remedy
    assert "the model itself" in str(report)


def test_opaque_calls_are_listed():
    class Calls(nn.Module):
        def forward(self, x):
            return torch.logcumsumexp(x, 1)

    report = td.find_unconvertible(nn.Sequential(nn.Linear(4, 4), Calls()), torch.randn(2, 4))
    assert report.opaque == ("1.logcumsumexp",)
    assert "opaque: 1.logcumsumexp" in str(report)


def test_example_inputs_are_found():
    assert td.find_unconvertible(Net(nn.ReLU())).converts
    with pytest.raises(td.ExampleInputsError):
        td.find_unconvertible(nn.Sequential(nn.BatchNorm1d(3)))


def test_the_model_is_left_alone():
    class Counts(Gate):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    model = Net(Counts()).train()
    td.find_unconvertible(model, torch.randn(2, 4))
    assert all(module.training for module in model.modules())
    assert model.blocks[0].inner.calls == 0
    assert not any(module._forward_pre_hooks for module in model.modules())
