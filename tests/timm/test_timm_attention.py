"""timm's attention as the core's composite op."""

from __future__ import annotations

import inspect

import pytest
import timm
import torch
from timm.layers import Attention, LayerNorm, RmsNorm
from torch import nn

from torch_dag_timm.attention import is_plain

TOKENS = torch.zeros(2, 7, 24)
VARIANTS = {
    "plain": {},
    "with bias": {"qkv_bias": True},
    "without projection bias": {"proj_bias": False},
    "layer norm of q and k": {"qk_norm": True, "norm_layer": nn.LayerNorm, "qkv_bias": True},
    "timm's layer norm": {"qk_norm": True, "norm_layer": LayerNorm},
    "rms norm": {"qk_norm": True, "norm_layer": RmsNorm},
    "torch's rms norm": {"qk_norm": True, "norm_layer": nn.RMSNorm},
    "norm of the result": {"scale_norm": True, "norm_layer": LayerNorm},
    "every norm": {"qk_norm": True, "scale_norm": True, "norm_layer": RmsNorm},
    "other widths": {"attn_head_dim": 10, "dim_out": 9},
    "dropout": {"attn_drop": 0.3, "proj_drop": 0.2, "qkv_bias": True},
}


def needs(function, *arguments):
    """Skip the test where timm's release is older than an argument of its function."""
    missing = set(arguments) - inspect.signature(function).parameters.keys()
    if missing:
        pytest.skip(f"{function.__qualname__} of timm {timm.__version__} does not take {', '.join(sorted(missing))}")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_timms(variant, fused, wrapped, kinds, assert_equal):
    needs(Attention, *VARIANTS[variant])
    attention = Attention(24, num_heads=4, **VARIANTS[variant])
    attention.fused_attn = fused
    model, dag = wrapped(attention, TOKENS)
    assert kinds(dag) == ["Attention"]
    assert model.state_dict().keys() == dag.state_dict().keys()
    for shape in ((1, 7, 24), (5, 7, 24)):
        assert_equal(model, dag, torch.randn(shape))
        assert_equal(model, dag, torch.randn(shape), training=True)


class Masked(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, mask):
        return self.attention(x, attn_mask=mask)


class Causal(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return self.attention(x, is_causal=True)


@pytest.mark.parametrize("fused", [True, False])
def test_a_mask_is_an_operand(fused, convert, kinds, assert_equal):
    attention = Attention(24, num_heads=4)
    attention.fused_attn = fused
    mask = torch.randn(2, 1, 7, 7)
    model = Masked(attention).eval()
    dag = convert(model, (TOKENS, mask))
    assert kinds(dag) == ["Attention"]
    assert_equal(model, dag, torch.randn(3, 7, 24), torch.randn(3, 1, 7, 7))


@pytest.mark.parametrize("fused", [True, False])
def test_causal_attention_sees_the_past_alone(fused, convert):
    needs(Attention.forward, "is_causal")
    attention = Attention(24, num_heads=4)
    attention.fused_attn = fused
    model = Causal(attention).eval()
    dag = convert(model, TOKENS)
    tokens = torch.randn(3, 7, 24)
    torch.testing.assert_close(dag(tokens), model(tokens), rtol=1e-5, atol=1e-6)
    changed = tokens.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(dag(changed)[:, :4], dag(tokens)[:, :4], rtol=0, atol=0)


def gated():
    needs(Attention, "gated")
    return Attention(24, num_heads=4, gated=True)


def uneven_norms():
    attention = Attention(24, num_heads=4, qk_norm=True, norm_layer=nn.LayerNorm)
    attention.k_norm.eps = 0.5
    return attention


def foreign_norm():
    return Attention(24, num_heads=4, qk_norm=True, norm_layer=lambda _, **__: nn.GroupNorm(1, 4))


def adapted():
    class LowRank(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    attention = Attention(24, num_heads=4)
    attention.proj = LowRank(24, 24)
    return attention


@pytest.mark.parametrize("make", [gated, uneven_norms, foreign_norm, adapted])
def test_other_kinds_are_traced_through(make, wrapped, kinds, assert_equal):
    attention = make()
    assert not is_plain(attention)
    model, dag = wrapped(attention, TOKENS)
    assert "Attention" not in kinds(dag)
    assert_equal(model, dag, torch.randn(3, 7, 24))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_vision_transformers_have_one_vertex_an_attention(name, make, convert, kinds):
    dag = convert(make(name, img_size=32))
    assert kinds(dag).count("Attention") == 12
    assert "ScaledDotProductAttention" not in kinds(dag)


def test_gradients_equal_timms(wrapped):
    model, dag = wrapped(Attention(24, num_heads=4, qk_norm=True, norm_layer=nn.LayerNorm), TOKENS)
    tokens = torch.randn(3, 7, 24)
    for twin in (model, dag):
        twin(tokens).square().sum().backward()
    found = dict(dag.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name].grad, parameter.grad, rtol=0, atol=0)
