"""Costs of models as they were published, at images of 224 pixels; one multiply-add is two operations."""

from __future__ import annotations

import pytest
import torch

import torch_dag_core as td

PUBLISHED = {
    "fbnetv3_b": (0.845e9, 8.6e6), "fbnetv3_d": (1.04e9, 10.3e6), "fbnetv3_g": (2.14e9, 16.6e6),
    "convnextv2_nano": (4.91e9, 15.6e6),
}  # fmt: skip
"""Floating-point operations and parameters."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name, make, convert):
    table = td.flops(convert(make(name), torch.zeros(1, 3, 224, 224)))
    assert (table.flops, table.parameters) == tuple(pytest.approx(cost, rel=0.01) for cost in PUBLISHED[name])
