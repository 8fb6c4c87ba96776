"""Masks on edges: where they lie, what they do, and that they can be saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.plugins.codecs import OpCodec
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import OpSpec
from torch_dag_core.serialization import load
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import masked_model
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.masked_ops.mask import Mask
from torch_dag_pruning.plan.plan import Plan


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 6, 1),
            nn.Conv2d(8, 6, 1),
        )

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        return self.b(x) + self.c(x)


@pytest.fixture
def small():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    dag = build_from_unstructured_module(awaken(Small()).eval(), x)
    return dag, x, analyze(dag, x)


def masks(dag):
    return [vertex.name for vertex in dag.inner_vertices if isinstance(vertex.module, Mask)]


def test_every_edge_into_a_contraction_over_the_orbit_has_one_mask(small):
    dag, _, analysis = small
    masked = masked_model(dag, Plan.random(analysis, 0.5), analysis=analysis)
    assert masks(masked) == ["b_mask", "c_mask"]
    masked.verify()


def test_nothing_is_masked_where_everything_stays(small):
    dag, x, analysis = small
    masked = masked_model(dag, Plan.whole(analysis), analysis=analysis)
    assert masks(masked) == []
    assert torch.equal(masked(x), dag(x))


def test_masked_slots_take_no_part_whatever_they_hold(small):
    dag, x, analysis = small
    (orbit,) = analysis.orbits
    masked = masked_model(dag, Plan.keeping(analysis, {orbit.key: [0, 5]}), analysis=analysis)
    wanted = masked(x)
    with torch.no_grad():
        masked.get_submodule("a").weight[[1, 2]] = float("nan")
        masked.get_submodule("a").weight[[3, 4, 6, 7]] = 1e4
    assert torch.equal(masked(x), wanted)


def test_plan_of_another_graph_is_refused(small):
    dag, _, analysis = small
    with pytest.raises(PlanError, match="no orbit 'nonesuch'"):
        masked_model(dag, Plan({"nonesuch": (0,)}, {"nonesuch": 2}), analysis=analysis)


def test_soft_masks_multiply_and_have_gradients():
    mask = torch.tensor([0.0, 0.25, 1.0], requires_grad=True)
    x = torch.tensor([[float("inf"), 2.0, 3.0]])
    result = Mask.of(mask)(x)
    assert result.tolist() == [[0.0, 0.5, 3.0]]
    Mask.of(mask)(torch.tensor([[5.0, 2.0, 3.0]])).sum().backward()
    assert mask.grad[1:].tolist() == [2.0, 3.0]


def test_masked_graph_can_be_saved_where_the_op_is_registered(small, tmp_path):
    dag, x, analysis = small
    registry = default_registry().copy()
    if registry.for_class(Mask) is None:
        registry.add(OpSpec(key="pruning.mask", target=Mask, codec=OpCodec(Mask)), owner="torch-dag-pruning")
    masked = masked_model(dag, Plan.random(analysis, 0.5), analysis=analysis)
    masked.save(tmp_path / "masked.safetensors", registry=registry)
    loaded = load(tmp_path / "masked.safetensors", registry=registry)
    assert torch.equal(loaded.eval()(x), masked.eval()(x))


def test_a_mask_that_was_saved_before_masks_could_be_learned_is_read():
    codec = OpCodec(Mask)
    built = codec.build({"shape": (3, 1), "dtype": torch.float32})
    assert codec.config(built) == {"shape": (3, 1), "dtype": torch.float32, "persistent": True}
    assert "mask" in built.state_dict()
