"""``torch-dag inspect``: orbits with kinds and costs, and what is in the way."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from torch_dag_core.cli.app import app
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.axes import Cause
from torch_dag_pruning.cli.advice import advice
from torch_dag_pruning.cli.inspection import inspect
from torch_dag_pruning.cli.source_lines import source_line
from torch_dag_pruning.plan.kinds import orbit_kinds


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (3, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=2)
        self.c = nn.Conv2d(12, 5, 1)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


class Rolled(Grouped):
    def forward(self, x):
        return self.c(self.b(self.a(x).roll(1, 1)))


@pytest.mark.parametrize(
    ("model", "inputs", "kinds"),
    [
        (Heads, torch.randn(2, 6, 12), {"heads": 3, "head_widths": 4}),
        (Grouped, torch.randn(2, 3, 8, 8), {"groups": 2, "widths": 4}),
    ],
)
def test_orbits_have_kinds(model, inputs, kinds):
    analysis = analyze(build_from_unstructured_module(model().eval(), inputs))
    found = orbit_kinds(analysis)
    by_kind = {found[orbit.key]: orbit.n for orbit in reversed(analysis.orbits)}
    assert {kind: by_kind.get(kind) for kind in kinds} == kinds


def test_a_plain_layer_has_a_width():
    analysis = analyze(build_from_unstructured_module(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))))
    assert list(orbit_kinds(analysis).values()) == ["widths"]


@pytest.fixture
def saved(tmp_path):
    build_from_unstructured_module(Rolled().eval(), torch.randn(2, 3, 8, 8)).save(tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def test_locks_are_shown_with_reason_and_advice(saved):
    result = CliRunner().invoke(inspect, [saved])
    assert result.exit_code == 0, result.output
    assert "of the FLOPs can be removed" in result.stdout
    assert "c (output): output c" in result.stdout
    assert "analyze(dag, free_outputs=[...])" in result.stdout


def test_programs_get_the_same_as_json(saved):
    result = CliRunner().invoke(app, ["inspect", saved, "--json"])
    found = json.loads(result.stdout)
    analysis = analyze(build_from_unstructured_module(Rolled().eval(), torch.randn(2, 3, 8, 8)))
    assert [orbit["key"] for orbit in found["orbits"]] == [orbit.key for orbit in analysis.orbits]
    assert found["flops"] == float(analysis.cost())
    assert found["macs"] == found["flops"] / 2
    shares = [lock["share"] for lock in found["locks"]]
    assert shares == sorted(shares, reverse=True)
    assert found["locks"][0]["vertex"]


def test_the_line_of_the_source_is_named():
    model = nn.Sequential(Grouped(), nn.ReLU())
    line = Grouped.forward.__code__.co_firstlineno
    assert source_line(model, "0.b") == f"pruning/cli/test_inspect.py:{line} (Grouped.forward)"
    assert source_line(model, "1") == ""
    assert source_line(build_from_unstructured_module(nn.Linear(4, 2)), "linear") == ""


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (Cause("head", "output", "output head"), "what the model returns"),
        (Cause("x", "core.roll", "no axis rule describes this op"), "write an axis rule"),
        (Cause("x", "core.get", "slots are picked by position"), "equal parts"),
        (Cause("x", "core.other", "something new"), ""),
    ],
)
def test_advice_follows_the_reason(cause, said):
    assert said in advice(cause)
    assert bool(advice(cause)) == bool(said)
