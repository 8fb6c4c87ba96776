"""The share of well-known networks that block pruning can reach."""

from __future__ import annotations

import pytest
import torch

from torch_dag_block_pruning import BlockPruningConfig, analyze_blocks
from torch_dag_core.conversion.convert import build_from_unstructured_module

timm = pytest.importorskip("timm")

SHAPE = (3, 224, 224)

IDENTITY_SHARE = {
    "resnet18": 0.6357, "resnet34": 0.8190, "resnet50": 0.6383, "resnet101": 0.8092, "resnet152": 0.8699,
}  # fmt: skip
"""FLOPs inside residual branches around an identity shortcut, as a share of all FLOPs, as published for an earlier
implementation of block pruning. Its denominator counts batch norms and activations as ours does."""

ANY_SHARE = {"resnet18": 0.924, "resnet34": 0.962, "resnet50": 0.883, "resnet101": 0.939, "resnet152": 0.958}
"""The same where the main branch of blocks with a projection may go too, counting convolutions and linear
layers only."""


@pytest.fixture(scope="module")
def model():
    built = {}

    def get(name):
        if name not in built:
            built[name] = build_from_unstructured_module(timm.create_model(name).eval(), torch.zeros(2, *SHAPE))
        return built[name]

    return get


def analyze(dag, **settings):
    return analyze_blocks(dag, SHAPE, BlockPruningConfig(keep_flops=1.0, training_steps=1, **settings))


@pytest.mark.parametrize("name", IDENTITY_SHARE)
def test_identity_blocks_of_resnets(model, name):
    report = analyze(model(name), shortcut="identity")
    assert report.removable_share == pytest.approx(IDENTITY_SHARE[name], abs=0.003)
    assert {len(each.vertices) for each in report.candidates} == {5 if name in ("resnet18", "resnet34") else 8}


@pytest.mark.parametrize("name", ANY_SHARE)
def test_all_blocks_of_resnets(model, name):
    report = analyze(model(name))
    assert report.removable_share == pytest.approx(ANY_SHARE[name], abs=0.003)
    assert len(report.candidates) - len(report.deepest) == (3 if name in ("resnet18", "resnet34") else 4)


def test_attention_and_perceptron_of_a_vit_go_one_by_one(model):
    dag = model("vit_tiny_patch16_224")
    report = analyze(dag)
    assert len(report.candidates) == len(report.deepest) == 2 * 12
    body = (
        1 - sum(flops for name, flops in report_flops(report).items() if not name.startswith("blocks.")) / report.flops
    )
    assert report.removable_share == pytest.approx(body, abs=1e-9)
    assert analyze(dag, shortcut="identity").candidates == report.candidates


def report_flops(report):
    return dict(zip(report.skeleton.names, report.skeleton.flops, strict=True))


def test_gates_of_an_efficientnet_are_small(model):
    report = analyze(model("efficientnet_b0"), units=("gate",))
    assert len(report.candidates) == 16
    assert 0 < report.removable_share < 0.02
