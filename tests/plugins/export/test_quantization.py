"""Weights as 8-bit integers: close outputs, small files that load without this plugin, and refusals by name."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_core.cli.app import app
from torch_dag_core.ops.attention import Attention
from torch_dag_export.quantization.rounding import rounded


def graph(model, *inputs):
    return td.build_from_unstructured_module(model.eval(), inputs)


def pruned_vit():
    tdp, timm = pytest.importorskip("torch_dag_pruning"), pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=7)
    x = torch.randn(2, 3, 32, 32)
    return tdp.OneShotChannelPruning(graph(model, x), None, keep_flops=0.6).finalize(), (x,)


LAYERS = {
    "linear": (lambda: nn.Linear(16, 8), (2, 16)),
    "linear without bias": (lambda: nn.Linear(16, 8, bias=False), (2, 16)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding="valid"), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), dilation=2, groups=2), (2, 4, 9, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (2, 4, 9)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2, bias=False), (2, 4, 9, 9)),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 4, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_layer_computes_with_its_rounded_weight(name, dtype):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make().to(dtype), torch.randn(shape, dtype=dtype)
    quantized = tde.quantize_weights(graph(layer, x))
    axis = 1 if "transpose" in name else 0
    value = rounded(layer.weight, axis)
    with torch.no_grad():
        layer.weight.copy_(value.integers.to(dtype) * value.scales)
    assert torch.equal(quantized(x), layer(x))
    assert value.integers.dtype == torch.int8
    assert value.scales.numel() == layer.weight.shape[axis]


@pytest.mark.parametrize("axis", [0, 1])
def test_no_element_is_off_by_more_than_half_a_step(axis):
    torch.manual_seed(0)
    weight = torch.randn(7, 5, 3) * torch.logspace(-6, 3, 7)[:, None, None]
    value = rounded(weight, axis)
    difference = value.integers * value.scales - weight
    assert (difference.abs() <= value.scales * (0.5 + 1e-5)).all()
    assert value.error == pytest.approx(float(difference.norm() / weight.norm()), rel=1e-5)
    assert value.integers.abs().amax() == 127


def test_a_channel_of_zeros_stays_zero():
    weight = torch.zeros(3, 4)
    weight[1] = 1
    value = rounded(weight, 0)
    assert torch.equal(value.integers * value.scales, weight)
    assert rounded(torch.zeros(3, 4), 0).error == 0


class Tied(nn.Module):
    """A token model whose head has the weight of the embedding, and that calls one layer twice."""

    def __init__(self):
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        return self.head(self.body(self.body(x)))


def test_a_weight_that_several_layers_read_is_stored_once():
    torch.manual_seed(0)
    ids = torch.randint(50, (2, 5))
    dag = graph(Tied(), ids)
    quantized = tde.quantize_weights(dag)
    integers = [name for name, tensor in quantized.state_dict().items() if tensor.dtype == torch.int8]
    assert integers == ["table.weight_int8", "body.weight_int8"]
    assert set(quantized.state_dict()) == {*integers, "table.weight_scale", "body.weight_scale", "body.bias"}
    assert tde.compare_outputs(dag, quantized, ids).relative < 0.05
    assert quantized(ids).shape == (2, 5, 50)


def test_a_float_checkpoint_does_not_become_integers_silently():
    dag = graph(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    with pytest.raises(RuntimeError, match=r"weight_int8"):
        tde.quantize_weights(dag).load_state_dict(dag.state_dict())


def test_every_model_and_pruned_one_is_close_and_is_saved_in_a_third(named_graph, tmp_path):
    name, dag, inputs = named_graph
    before = copy.deepcopy(dag.state_dict())
    quantized = tde.quantize_weights(dag)
    quantized.verify()
    check = tde.compare_outputs(dag, quantized, *inputs)
    print(f"{name}: {check}")
    assert 0 < check.relative < 0.1
    assert all(torch.equal(value, dag.state_dict()[key]) for key, value in before.items())
    dag.save(tmp_path / "float.safetensors")
    quantized.save(tmp_path / "int8.safetensors")
    if name not in {"conv_net", "two_outputs"}:
        sizes = {kind: (tmp_path / f"{kind}.safetensors").stat().st_size for kind in ("float", "int8")}
        assert sizes["int8"] < 0.33 * sizes["float"]
    loaded = td.load(tmp_path / "int8.safetensors")
    assert tde.compare_outputs(quantized, loaded, *inputs).relative == 0


def test_the_file_names_ops_of_the_core_alone(small):
    registry = td.default_registry()
    owners = {registry.for_module(vertex.module).owner for vertex in tde.quantize_weights(small).inner_vertices}
    assert owners == {"torch-dag-core"}


@pytest.mark.parametrize("name", ["pt2", "onnx", "openvino", "python"])
def test_every_format_keeps_the_integers(tmp_path, name):
    for package in tde.export_formats()[name].packages:
        pytest.importorskip(package)
    torch.manual_seed(0)
    dag = graph(nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 8)), torch.randn(2, 256))
    floats = tde.export(dag, tmp_path / "float", format=name)
    report = tde.export(tde.quantize_weights(dag), tmp_path / "int8", format=name)
    assert report.relative < 1e-5
    assert report.size < 0.35 * floats.size


def test_composite_ops_and_nested_graphs_are_taken_apart():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16)
    dag = td.DagModule()
    dag.set_outputs(dag.add_vertex("attention", Attention(16, 2, 8, 16, scale=0.4), [dag.add_input("x")]))
    dag.eval()
    with pytest.raises(td.InputError, match="does not remember the sizes of its inputs"):
        tde.quantize_weights(dag)
    inner = graph(nn.Sequential(nn.Linear(16, 16), nn.ReLU()), x)
    nested = td.DagModule()
    nested.set_outputs(nested.add_vertex("inner", inner, [nested.add_input("x")]))
    quantized = tde.quantize_weights(nested.eval())
    assert [v.name for v in quantized.inner_vertices if v.name.endswith(".linear")] == ["inner.0.linear"]
    assert tde.compare_outputs(nested, quantized, x).relative < 0.02


class Odd(nn.Module):
    """Layers that keep their weights, each for another reason, and one that does not."""

    def __init__(self):
        super().__init__()
        self.padded = nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")
        self.recurrent = nn.GRU(4, 4, batch_first=True)
        self.infinite, self.ignored, self.fits = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.first, self.twin = nn.Linear(4, 4), nn.Bilinear(4, 4, 1, bias=False)
        self.infinite.weight.data[0, 0] = math.inf
        self.shared = nn.Linear(4, 4)
        self.scale = self.shared.weight

    def forward(self, x):
        x, _ = self.recurrent(self.padded(x.transpose(1, 2)).transpose(1, 2))
        x = self.fits(self.ignored(self.infinite(x)))
        return self.shared(x) + self.scale.sum() + self.twin(x, x)


def test_what_is_left_has_a_reason():
    dag = graph(Odd(), torch.randn(2, 5, 4))
    algorithm = td.find_algorithm("int8-weights").start(dag, ignore=("ignored",))
    report = algorithm.analyze()
    assert [each.name for each in report.candidates] == ["fits"]
    assert {each.name: each.reason for each in report.skipped} == {
        "padded": "it pads with something other than zeros",
        "recurrent": "there is no rule for layers of its class",
        "infinite": "its weight has infinities or NaN",
        "ignored": "ignore names it",
        "shared": "its weight is also used by scale, which keeps it as it is",
        "twin": "there is no rule for layers of its class",
    }
    assert "left as it is: infinite" in str(report)


def test_refusals():
    dag = graph(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4))
    with pytest.raises(tde.QuantizationError, match=r"ignore names 'head', but the graph has no such vertex"):
        tde.quantize_weights(dag, ignore=["head"])
    with pytest.raises(tde.QuantizationError, match=r"no layer whose weight .* integers \('0': ignore names it\)$"):
        tde.quantize_weights(dag, ignore=["0"])
    quantized = tde.quantize_weights(dag)
    with pytest.raises(tde.QuantizationError, match=r"no layer whose weight can be stored as integers$"):
        tde.quantize_weights(quantized)
    with pytest.raises(td.SettingsError, match="ignore must be a tuple of names"):
        td.find_algorithm("int8-weights").start(dag, ignore="0")


def test_the_algorithm_reports_bytes_and_rounding_errors(small):
    algorithm = tde.WeightQuantization(small, tde.WeightQuantizationConfig())
    report = algorithm.analyze()
    assert {each.name: each.kind for each in report.candidates} == {
        "stem.0": "convolution", "block": "convolution", "head": "linear",
    }  # fmt: skip
    assert all(each.before > each.after and 0 < each.error < 0.02 for each in report.candidates)
    quantized = algorithm.finalize()
    for when, dag in (("before", small), ("after", quantized)):
        tensors = (*dag.parameters(), *dag.buffers())
        assert getattr(report, when) == sum(each.numel() * each.element_size() for each in tensors)
    assert float(algorithm.losses(0).total()) == 0
    assert float(algorithm.losses(0).cost_share) == pytest.approx(report.after / report.before)
    assert algorithm.prepare() is small


def test_the_command_writes_a_graph(small, tmp_path):
    small.save(tmp_path / "small.safetensors")
    out = tmp_path / "int8.safetensors"
    arguments = ["run", "int8-weights", str(tmp_path / "small.safetensors"), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "ignore=('head',)"])
    assert result.exit_code == 0, result.output
    assert "int8-weights: 2 layers, " in result.output
    assert "left as it is: head" in result.output
    kinds = {name: tensor.dtype for name, tensor in td.load(out).state_dict().items()}
    assert kinds["block.weight_int8"] == torch.int8
    assert kinds["head.weight"] == torch.float32


TORCHAO = {
    "weights": ("Int8WeightOnlyConfig", ("pt2", "onnx")),
    "weights and activations": ("Int8DynamicActivationInt8WeightConfig", ("pt2",)),
}


@pytest.mark.parametrize("name", TORCHAO)
def test_torchao_quantizes_a_pruned_graph_in_place(tmp_path, name):
    torchao = pytest.importorskip("torchao.quantization")
    dag, inputs = pruned_vit()
    integer = copy.deepcopy(dag)
    config, formats = TORCHAO[name]
    torchao.quantize_(integer, getattr(torchao, config)())
    check = tde.compare_outputs(dag, integer, *inputs)
    print(f"torchao, int8 {name}: {check}")
    assert 0 < check.relative < 0.1
    for each in formats:
        for package in tde.export_formats()[each].packages:
            pytest.importorskip(package)
        assert tde.export(integer, tmp_path / each, format=each).relative < 1e-5
    with pytest.raises(td.SerializationError, match=r"is a Int8Tensor of torch\.float32, which cannot be saved"):
        integer.save(tmp_path / "integer.safetensors")
    with pytest.raises(tde.ExportError, match=r"is a Int8Tensor; the format 'python' holds plain tensors alone"):
        tde.export(integer, tmp_path / "integer.py")


def test_torchao_and_the_graph_round_alike():
    """Weight-only int8 of torchao has the same integers, up to those that lie between two."""
    torchao = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    dag = graph(nn.Sequential(nn.Linear(64, 32)), torch.randn(2, 64))
    ours = tde.quantize_weights(dag).state_dict()
    torchao.quantize_(dag, torchao.Int8WeightOnlyConfig())
    theirs = dag.get_parameter("0.weight")
    assert (ours["0.weight_int8"].int() - theirs.qdata.int()).abs().amax() <= 1
    assert torch.allclose(ours["0.weight_scale"].flatten(), theirs.scale.flatten(), rtol=0.01)


def test_a_quantized_graph_still_trains_what_is_left(small):
    quantized = tde.quantize_weights(small).train()
    quantized(torch.randn(4, 3, 8, 8)).sum().backward()
    assert {name for name, each in quantized.named_parameters() if each.grad is None} == set()
    assert "head.bias.value" in dict(quantized.named_parameters())
