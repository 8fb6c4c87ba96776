"""Scores by weights alone, against sums taken by hand; and classes of orbits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.isomorphism import isomorphic_classes
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.weight_criteria import BatchNormScale, GeometricMedian


class Blocks(nn.Module):
    def __init__(self, norm=True):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.one, self.two = (
            nn.Sequential(
                nn.Conv2d(8, width, 1), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.Conv2d(width, 8, 1)
            )
            for width in (6, 12)
        )
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.head(x + self.two(x + self.one(x)))


def analysed(**options):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = awaken(Blocks(**options)).eval()
    return model, analyze(build_from_unstructured_module(model, x), x)


def test_scales_of_batch_norms_are_summed():
    model, analysis = analysed()
    scores = BatchNormScale().score(analysis)
    torch.testing.assert_close(scores["one.0.weight:0"], model.one[1].weight.detach().abs().double())


def test_an_orbit_without_a_batch_norm_is_named():
    _, analysis = analysed(norm=False)
    with pytest.raises(PlanError, match=r"orbit 'one.0.weight:0' has no batch norm with a scale"):
        BatchNormScale().score(analysis)


def test_distances_are_those_of_all_that_goes_with_a_slot():
    model, analysis = analysed()
    first, norm, last = model.one
    vectors = (first.bias, norm.weight, norm.bias)
    rows = [first.weight.flatten(1), last.weight.flatten(1).T, *(vector[:, None] for vector in vectors)]
    rows = torch.cat(rows, 1).double().detach()
    wanted = (rows[:, None] - rows[None]).norm(dim=2).sum(1)
    torch.testing.assert_close(GeometricMedian().score(analysis)["one.0.weight:0"], wanted)


def test_blocks_are_isomorphic_whatever_their_sizes():
    _, analysis = analysed()
    assert sorted(map(sorted, isomorphic_classes(analysis).values())) == [
        ["one.0.weight:0", "two.0.weight:0"], ["stem.weight:0"],
    ]  # fmt: skip


def test_isomorphic_orbits_compete_and_others_do_not():
    _, analysis = analysed()
    with torch.no_grad():
        for name, tensor in analysis.dag.named_parameters():
            tensor.mul_(1e-3 if name.startswith(("one.", "stem")) else 1.0)
    counts = Plan.by_importance(analysis, _Raw(), 0.5, scope="isomorphic").counts()
    assert counts["one.0.weight:0"] == 1
    assert counts["two.0.weight:0"] > 6
    assert counts["stem.weight:0"] > 3


class _Raw:
    """The size of biases, which can be compared."""

    name, is_comparable = "raw", True

    def score(self, analysis):
        tensors = dict(analysis.dag.named_parameters())
        return {orbit.key: tensors[f"{orbit.name}.bias"].detach().abs().double() for orbit in analysis.orbits}
