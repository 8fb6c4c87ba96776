"""Attention in every form that torch has, against torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_export.formats.attention import with_simple_attention

HIDDEN = torch.tensor([[True, False, True, True, False]] * 3 + [[False] * 5])
"""Four queries and five keys, of which the last query sees none."""
FORMS = {
    "plain": {},
    "scaled": {"scale": 0.2},
    "scaled by a negative number": {"scale": -0.5},
    "causal": {"is_causal": True},
    "hidden keys": {"attn_mask": HIDDEN},
    "hidden keys of each sample": {"attn_mask": torch.stack([HIDDEN, ~HIDDEN])[:, None]},
    "biased": {"attn_mask": torch.linspace(-2, 2, 5)[None]},
    "biased by infinity": {"attn_mask": torch.zeros(4, 5).masked_fill(~HIDDEN, -float("inf"))},
    "a lowest bias": {"attn_mask": torch.zeros(4, 5).masked_fill(~HIDDEN, torch.finfo(torch.float32).min)},
    "grouped queries": {"enable_gqa": True, "attn_mask": HIDDEN},
}


class Attending(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = {name: value for name, value in form.items() if name != "attn_mask"}
        self.register_buffer("mask", form.get("attn_mask"))

    def forward(self, query, key, value):
        return functional.scaled_dot_product_attention(query, key, value, self.mask, **self.form)


def operands(form):
    torch.manual_seed(0)
    heads = 2 if FORMS[form].get("enable_gqa") else 4
    shapes = (2, 4, 4, 6), (2, heads, 5, 6), (2, heads, 5, 3)
    return tuple(torch.randn(shape) for shape in shapes)


@pytest.mark.parametrize("form", FORMS)
def test_simple_attention_is_attention(form):
    model, given = Attending(FORMS[form]), operands(form)
    program = with_simple_attention(torch.export.export(model, given))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("attention" in name for name in called)
    torch.testing.assert_close(program.module()(*given), model(*given))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["onnx", "openvino", "executorch", "litert"])
@pytest.mark.parametrize("form", FORMS)
def test_every_runtime_attends_as_the_graph_does(form, name, tmp_path):
    for package in tde.export_formats()[name].packages:
        pytest.importorskip(package)
    dag = td.build_from_unstructured_module(Attending(FORMS[form]).eval(), operands(form))
    report = tde.export(dag, tmp_path / "attention", format=name)
    assert report.relative < 1e-6
