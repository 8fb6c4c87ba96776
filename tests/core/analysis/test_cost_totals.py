"""Contractions of whole models against `FlopCounterMode`, exactly: the rest of the count is taken off by formula."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import torch_dag_core as td
from torch_dag_core.ops import contraction
from torch_dag_core.ops.attention import Attention
from torch_dag_core.ops.torch_call import TorchCall


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), nn.GRU(12, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.gru(self.lstm(x)[0])[0])


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(8, 5)
        self.bilinear = nn.Bilinear(6, 5, 4)

    def forward(self, x):
        a, b = self.first(x), self.second(x)
        return self.bilinear(a, b), torch.einsum("bi,bj->ij", a, b), torch.addmm(b, x, self.second.weight.mT)


def torchvision(name, size=64, **options):
    def make():
        models = pytest.importorskip("torchvision.models")
        return getattr(models, name)(**options)

    return make, (2, 3, size, size)


def timm(name, size=64, **options):
    def make():
        pytest.importorskip("timm.version")  # a folder may be left of a package that is not installed any more
        return importlib.import_module("timm").create_model(name, **options)

    return make, (2, 3, size, size)


MODELS = {
    "resnet18": torchvision("resnet18"),
    "resnext50_32x4d": torchvision("resnext50_32x4d"),
    "mobilenet_v3_small": torchvision("mobilenet_v3_small"),
    "shufflenet_v2_x0_5": torchvision("shufflenet_v2_x0_5"),
    "vit_b_16": torchvision("vit_b_16", image_size=64, num_classes=10),
    "efficientnet_b0": timm("efficientnet_b0"),
    "convnext_atto": timm("convnext_atto"),
    "vit_tiny_patch16_224": timm("vit_tiny_patch16_224", img_size=64),
    "mixer_s32_224": timm("mixer_s32_224", size=224),
    "regnety_002": timm("regnety_002"),
    "recurrent": (Recurrent, (2, 5, 8)),
    "products": (Products, (3, 8)),
}


def bias(module, row, shapes):
    """Return an addition for each result of a layer with a bias."""
    return 0 if module.bias is None else math.prod(row.outputs[0])


def bias_operand(module, row, shapes):
    return math.prod(row.outputs[0]) if len(shapes) > 2 else 0


def softmax(module, row, shapes):
    query, key = shapes[:2]
    return 5 * math.prod(query[:-1]) * key[-2]


def biases_and_softmax(module, row, shapes):
    batch, tokens, _ = shapes[0]
    biases = sum(layer.out_features for layer in (module.qkv, module.proj) if layer.bias is not None)
    return batch * tokens * biases + 5 * batch * module.num_heads * tokens**2


def beside_weights(module, row, shapes):
    """Return what is no product with a weight, of which each step has one for each."""
    weights = sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
    return row.flops - 2 * math.prod(row.outputs[0][:-1]) * weights


def all_but_torch_call(module, row, shapes):
    assert module.function == "torch.addmm"
    return math.prod(row.outputs[0])


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NOT_CONTRACTED = {
    **dict.fromkeys((*LAYERS, nn.Bilinear), bias),
    **dict.fromkeys(
        (contraction.LinearFunction, contraction.Convolution, contraction.TransposedConvolution), bias_operand
    ),
    **dict.fromkeys((contraction.Matmul, contraction.Einsum), lambda *_: 0),
    **dict.fromkeys((nn.LSTM, nn.GRU), beside_weights),
    contraction.ScaledDotProductAttention: softmax,
    Attention: biases_and_softmax,
    TorchCall: all_but_torch_call,
}


def not_contracted(table, vertex):
    """Return the FLOPs of a vertex that are no multiply-accumulates: all of them, unless its op contracts."""
    row = table[vertex.name]
    shapes = [table[p.name].outputs[0] for p in vertex.predecessors if not isinstance(p, td.InputVertex)]
    rule = NOT_CONTRACTED.get(type(vertex.module))
    return row.flops if rule is None else rule(vertex.module, row, shapes)


def torch_count(model, x):
    """Count without data: fused kernels hide what they do."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(x.to("meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_contractions_are_counted_as_torch_counts_them(name):
    make, shape = MODELS[name]
    model, x = make().eval(), torch.rand(shape)
    dag = td.build_from_unstructured_module(model, x).eval()
    table = td.flops(dag, x)
    counted = {row.name for row in table.rows}
    ours = table.flops - sum(not_contracted(table, v) for v in dag.inner_vertices if v.name in counted)
    if name == "products":
        # Torch computes a bilinear map by products and sums, which its counter does not see.
        ours -= 2 * 3 * 4 * 6 * 5 + 2 * 3 * 4 * 5
    assert ours == torch_count(model, x)
    assert table.unknown == {}


def test_what_is_unknown_is_named():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(torch.tanh(x)).abs()

    dag = td.build_from_unstructured_module(Spectrum(), torch.rand(2, 8))
    table = td.flops(dag)
    assert table.unknown == {"TorchCall": ("fft_rfft",)}
    assert str(table).splitlines()[-1] == "cost unknown, counted as one FLOP per output element: TorchCall (fft_rfft)"
    assert table["fft_rfft"].flops == 5
    dag.wrap_subgraph([dag.get_vertex_by_name("tanh"), dag.get_vertex_by_name("fft_rfft")], name="inner")
    assert td.flops(dag).unknown == {"TorchCall": ("inner",)}


def test_modules_that_no_op_describes_are_unknown():
    class Own(nn.Module):
        def forward(self, x):
            return x + 1

    dag = td.build_from_unstructured_module(nn.Sequential(Own()), torch.rand(2, 8), atomic_modules=(Own,))
    assert td.flops(dag).unknown == {"Own": ("0",)}
