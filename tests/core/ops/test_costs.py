"""The cost of one call, by the rule of its op."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.analysis.call_cost import call_flops
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.registry import OpSpec

LINEAR = next(spec for spec in specs() if spec.key == "core.linear")


@pytest.mark.parametrize("spec", [None, OpSpec(key="sample.relu", target=nn.ReLU)])
def test_without_a_rule_each_result_element_costs_one(spec):
    assert call_flops(spec, nn.ReLU(), [(2, 3)], [(2, 3), (4,)], {}) == 10


def test_the_rule_of_the_op_counts():
    shapes = {"weight": (5, 3), "bias": (5,)}
    assert call_flops(LINEAR, nn.Linear(3, 5), [(2, 3)], [(2, 5)], shapes) == 2 * 2 * 5 * 3 + 2 * 5


def test_sizes_may_be_differentiable():
    width = torch.tensor(5.0, requires_grad=True)
    cost = call_flops(LINEAR, nn.Linear(3, 5), [(2, 3)], [(2, width)], {"weight": (width, 3)})
    cost.backward()
    assert (cost.item(), width.grad.item()) == (60.0, 12.0)
