"""Real models: masked equals removed, sizes and FLOPs as predicted, whole orbits at zero."""

from __future__ import annotations

import pytest
import torch

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, masked_model, removal_proof
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.plan.plan import Plan

timm = pytest.importorskip("timm")

QUICK = {
    "resnet18": 64,
    "mobilenetv3_small_100": 64,
    "regnety_002": 64,
    "vit_tiny_patch16_224": 224,
}
MANY = {
    "bat_resnext26ts": 256, "cait_xxs24_224": 224, "coat_tiny": 224, "convmixer_768_32": 96, "convnextv2_atto": 96,
    "convit_tiny": 224, "crossvit_tiny_240": 240, "cs3darknet_focus_s": 96, "davit_tiny": 224,
    "deit3_small_patch16_224": 224,
    "densenet121": 96, "dla46x_c": 96, "dpn48b": 96, "edgenext_xx_small": 96, "efficientformer_l1": 224,
    "efficientformerv2_s0": 224, "ese_vovnet19b_slim_dw": 96, "eva02_tiny_patch14_224": 224, "fbnetv3_b": 96,
    "gcvit_xxtiny": 224, "gernet_s": 96, "ghostnet_050": 96, "gmlp_ti16_224": 224, "hardcorenas_b": 96,
    "hrnet_w18_small": 96, "inception_v3": 128, "levit_128s": 224, "maxvit_pico_rw_256": 256, "mobilenetv2_035": 96,
    "mobilevit_xxs": 96, "mobilevitv2_050": 96, "mvitv2_tiny": 224, "nest_tiny": 224, "nf_regnet_b0": 96,
    "pit_ti_224": 224,
    "poolformerv2_s12": 96, "pvt_v2_b0": 96, "regnetx_002": 96, "repvit_m1": 96, "resnest14d": 96, "resnetv2_50": 96,
    "rexnet_100": 96, "sequencer2d_s": 224, "skresnet18": 96, "swin_tiny_patch4_window7_224": 224,
    "swinv2_tiny_window16_256": 256, "tnt_s_patch16_224": 224, "twins_svt_small": 224, "visformer_tiny": 224,
    "volo_d1_224": 224, "xception41p": 96, "xcit_nano_12_p16_224": 224,
}  # fmt: skip


def prepared(name, size):
    torch.manual_seed(0)
    model = awaken(timm.create_model(name)).eval()
    dag = build_from_unstructured_module(model, torch.randn(2, 3, size, size))
    return dag, analyze(dag)


def check(name, size):
    _, analysis = prepared(name, size)
    plan = Plan.random(analysis, 0.6, seed=1)
    smaller = Cut(analysis, plan).removed()
    Cut(analysis, plan).prove(smaller)  # in single precision, where a near miss is decided in double
    proof = removal_proof(analysis, plan, smaller, dtype=torch.float64)
    assert proof.worst < 1e-12
    assert proof.effect > 0.003
    counts = plan.atom_counts(analysis)
    assert analyze(smaller).cost() == analysis.cost(counts)
    assert sum(p.numel() for p in smaller.parameters()) == analysis.parameters_count(counts)


@pytest.mark.parametrize("name", QUICK)
def test_removed_equals_masked(name):
    check(name, QUICK[name])


@pytest.mark.heavy
@pytest.mark.parametrize("name", MANY)
def test_removed_equals_masked_on_many(name):
    check(name, MANY[name])


def check_empty(name, size, share):
    """Every so-manieth orbit at zero, the others at random; refused only where nothing of the input gets through."""
    dag, analysis = prepared(name, size)
    plan = Plan.random(analysis, 0.7, seed=2)
    for orbit in analysis.orbits[1::share]:
        if orbit.minimum == 0:
            plan = plan.with_orbit(orbit.key, [])
    try:
        smaller = Cut(analysis, plan).removed()
    except RemovalError:
        masked = masked_model(dag, plan, analysis=analysis).eval()
        assert torch.equal(masked(torch.randn(2, 3, size, size)), masked(torch.randn(2, 3, size, size)))
        return
    assert removal_proof(analysis, plan, smaller, dtype=torch.float64).worst < 1e-12
    assert all(0 not in tensor.shape for tensor in smaller.state_dict().values())


@pytest.mark.parametrize("name", QUICK)
def test_a_third_of_the_orbits_at_zero(name):
    check_empty(name, QUICK[name], 3)


@pytest.mark.heavy
@pytest.mark.parametrize("name", MANY)
def test_a_third_of_the_orbits_at_zero_on_many(name):
    check_empty(name, MANY[name], 3)


@pytest.mark.heavy
@pytest.mark.parametrize("name", QUICK)
def test_every_orbit_of_a_model_alone_at_zero(name):
    _, analysis = prepared(name, QUICK[name])
    for orbit in analysis.orbits:
        plan = Plan.keeping(analysis, {orbit.key: range(orbit.minimum)})
        assert removal_proof(analysis, plan, Cut(analysis, plan).removed(), dtype=torch.float64).worst < 1e-12
