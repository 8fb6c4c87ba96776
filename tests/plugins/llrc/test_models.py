"""Low-rank analysis of well-known networks."""

from __future__ import annotations

import pytest
import torch

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_llrc import analyze_ranks

timm = pytest.importorskip("timm")

SHAPE = (3, 224, 224)


def analyze(name):
    dag = build_from_unstructured_module(timm.create_model(name).eval(), torch.zeros(2, *SHAPE))
    return dag, analyze_ranks(dag, SHAPE)


def test_every_layer_of_a_resnet_is_a_candidate():
    dag, report = analyze("resnet18")
    layers = [v.name for v in dag.inner_vertices if type(v.module) in (torch.nn.Conv2d, torch.nn.Linear)]
    assert [each.name for each in report.candidates] == layers
    assert report.skipped == ()
    assert 0.95 < report.removable_share < 0.97
    assert {table.scheme for table in report.candidates[1].tables} == {"in", "out", "spatial", "tucker2"}
    assert [table.scheme for table in report.candidates[-1].tables] == ["linear"]


def test_the_perceptrons_of_a_vit_are_candidates():
    _, report = analyze("vit_tiny_patch16_224")
    found = {each.name for each in report.candidates}
    assert {f"blocks.{i}.mlp.fc{j}" for i in range(12) for j in (1, 2)} <= found
    products = [
        each for each in (*report.candidates, *report.skipped) if each.name.endswith((".qkv", ".proj", ".attn"))
    ]
    assert len(products) >= 12


def test_depthwise_convolutions_are_left_with_their_reason():
    dag, report = analyze("mobilenetv2_050")
    grouped = [v.name for v in dag.inner_vertices if getattr(v.module, "groups", 1) > 1]
    assert [each.name for each in report.skipped if each.reason == "it has several groups"] == grouped
