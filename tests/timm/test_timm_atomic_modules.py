"""Each module class that the plugin knows, against timm's own code."""

from __future__ import annotations

import pytest
import torch
from timm.layers import (
    AvgPool2dSame,
    BatchNormAct2d,
    Conv2dSame,
    DropPath,
    ScaledStdConv2dSame,
    StdConv2dSame,
    create_norm_act_layer,
    freeze_batch_norm_2d,
)
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

IMAGE = torch.zeros(2, 6, 32, 32)
SIZES = [(1, 6, 32, 32), (5, 6, 33, 47), (2, 6, 7, 50)]

SAME_PADDED = {
    "conv": (lambda: Conv2dSame(6, 8, 3, stride=2), ["SamePad", "Conv2d"]),
    "conv without bias, dilated, grouped": (
        lambda: Conv2dSame(6, 8, (3, 5), stride=(2, 1), dilation=2, groups=2, bias=False), ["SamePad", "Conv2d"],
    ),
    "average": (lambda: AvgPool2dSame(3, 2), ["SamePad", "AvgPool2d"]),
    "average of the image alone": (lambda: AvgPool2dSame(2, 2, count_include_pad=False), ["SamePad", "AvgPool2d"]),
    "max": (lambda: MaxPool2dSame((3, 2), 2), ["SamePad", "MaxPool2d"]),
    "standardized": (lambda: StdConv2dSame(6, 8, 3, stride=2), ["SamePad", "Convolution"]),
    "standardized, static": (lambda: StdConv2dSame(6, 8, 3, bias=True), ["Convolution"]),
    "scaled": (lambda: ScaledStdConv2dSame(6, 8, 4, stride=2), ["SamePad", "Convolution"]),
    "scaled, static": (lambda: ScaledStdConv2dSame(6, 8, 1), ["Convolution"]),
}  # fmt: skip


def same_keys(model, dag):
    return model.state_dict().keys() == dag.state_dict().keys()


@pytest.mark.parametrize("case", SAME_PADDED)
def test_same_padding_follows_the_image(case, wrapped, kinds, assert_equal):
    make, expected = SAME_PADDED[case]
    model, dag = wrapped(make(), IMAGE)
    assert [kind for kind in kinds(dag) if kind in {"SamePad", expected[-1]}] == expected
    assert same_keys(model, dag)
    for size in SIZES:
        assert_equal(model, dag, torch.randn(size))
        assert_equal(model, dag, torch.randn(size), training=True)


def test_same_padding_equals_tensorflows_rule(wrapped):
    _, dag = wrapped(Conv2dSame(6, 8, 3, stride=2), IMAGE)
    for height, width in ((32, 32), (33, 50), (1, 2)):
        assert dag(torch.randn(2, 6, height, width)).shape == (2, 8, -(-height // 2), -(-width // 2))


@pytest.mark.parametrize("rate", [0.3, 0.6])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", [(64, 6), (16, 5, 6), (9, 6, 4, 4)])
def test_drop_path_draws_as_timm_does(rate, scale, shape, wrapped, kinds, assert_equal):
    model, dag = wrapped(nn.Sequential(nn.Linear(shape[-1], 8), DropPath(rate, scale)), torch.zeros(shape))
    assert kinds(dag) == ["Linear", "DropPath"]
    assert_equal(model, dag, torch.randn(shape))
    assert_equal(model, dag, torch.randn(shape), training=True)


def test_drop_path_of_rate_zero_is_nothing(wrapped, kinds):
    _, dag = wrapped(nn.Sequential(nn.ReLU(), DropPath(0.0)), IMAGE)
    assert kinds(dag) == ["ReLU"]


BATCH_NORMS = {
    "relu": (lambda: BatchNormAct2d(6), "ReLU"),
    "no activation": (lambda: BatchNormAct2d(6, apply_act=False), None),
    "silu": (lambda: BatchNormAct2d(6, act_layer=nn.SiLU), "SiLU"),
    "timm's own activation": (lambda: BatchNormAct2d(6, act_layer="quick_gelu"), "Mul"),
    "arguments": (lambda: BatchNormAct2d(6, act_layer="leaky_relu", act_kwargs={"negative_slope": 0.3}), "LeakyReLU"),
    "no affine": (lambda: BatchNormAct2d(6, eps=1e-2, momentum=0.3, affine=False), "ReLU"),
    "cumulative": (lambda: BatchNormAct2d(6, momentum=None), "ReLU"),
    "no statistics": (lambda: BatchNormAct2d(6, track_running_stats=False), "ReLU"),
    "dropout": (lambda: BatchNormAct2d(6, drop_layer=lambda: nn.Dropout(0.4)), "ReLU"),
    "by name": (lambda: create_norm_act_layer("batchnorm", 6, "hard_swish"), "Hardswish"),
}  # fmt: skip


@pytest.mark.parametrize("case", BATCH_NORMS)
def test_batch_norm_with_activation_becomes_both(case, wrapped, kinds, assert_equal):
    make, activation = BATCH_NORMS[case]
    model, dag = wrapped(make(), IMAGE)
    assert kinds(dag)[0] == "BatchNorm2d"
    assert kinds(dag)[-1] == (activation or "BatchNorm2d")
    assert same_keys(model, dag)
    for size in SIZES:
        assert_equal(model, dag, torch.randn(size))
        assert_equal(model, dag, torch.randn(size), training=True)


def test_batch_norm_and_activation_are_named_after_the_module(wrapped):
    _, dag = wrapped(BatchNormAct2d(6), IMAGE)
    assert [vertex.name for vertex in dag.inner_vertices] == ["1", "1_act"]


def test_batch_norm_counts_its_batches(wrapped):
    model, dag = wrapped(BatchNormAct2d(6), IMAGE)
    for twin in (model.train(), dag.train()):
        for _ in range(3):
            twin(torch.ones(2, 6, 3, 3))
    assert dag.state_dict()["1.num_batches_tracked"] == model[1].num_batches_tracked == 3


def test_conversion_leaves_statistics_alone(wrapped):
    norm = BatchNormAct2d(6)
    model, _ = wrapped(norm, IMAGE)
    assert norm.num_batches_tracked == 0
    assert not model.training


def test_frozen_batch_norm_is_one_vertex(wrapped, kinds):
    model, dag = wrapped(freeze_batch_norm_2d(BatchNormAct2d(6)), IMAGE)
    assert [kind for kind in kinds(dag) if kind != "Constant"] == ["FrozenBatchNorm", "ReLU"]
    assert same_keys(model, dag)
    image = torch.randn(3, 6, 9, 8)
    for training in (False, True):
        torch.testing.assert_close(dag.train(training)(image), model.train(training)(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["edgenext_xx_small", "mobilevitv2_050", "tf_mobilenetv3_small_minimal_100"])
def test_models_of_these_modules_have_no_noise(name, make, convert, kinds):
    dag = convert(make(name, drop_path_rate=0.1))
    assert {"TrainingSwitch", "Random", "SetIndex", "TorchCall", "State", "Where"}.isdisjoint(kinds(dag))
