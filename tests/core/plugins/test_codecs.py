"""Every configurable torch.nn layer comes back from its constants, on the meta device, without random draws."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, decode, encode
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.codecs import ClassCodec, ModuleCodec, OpCodec

CONVOLUTIONS = [
    make(*arguments, **extra)
    for dim in "123"
    for make, arguments, extra in [
        (getattr(nn, f"Conv{dim}d"), (4, 6, 3), {}),
        (getattr(nn, f"Conv{dim}d"), (4, 6, 3), {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "bias": False}),
        (getattr(nn, f"Conv{dim}d"), (4, 6, 3), {"padding": "same", "padding_mode": "reflect"}),
        (getattr(nn, f"ConvTranspose{dim}d"), (4, 6, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
    ]
]
NORMS = [
    make(4, **extra)
    for name in ("BatchNorm", "InstanceNorm")
    for dim in "123"
    for make in [getattr(nn, f"{name}{dim}d")]
    for extra in [
        {}, {"eps": 1e-3, "momentum": 0.2}, {"affine": True, "track_running_stats": True}, {"affine": False},
        {"track_running_stats": False}, *([{"momentum": None}] if name == "BatchNorm" else []),
    ]
]  # fmt: skip
POOLS = [
    make
    for dim in "123"
    for make in [
        getattr(nn, f"MaxPool{dim}d")(3, stride=2, padding=1, dilation=2, return_indices=True, ceil_mode=True),
        getattr(nn, f"AvgPool{dim}d")(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        getattr(nn, f"LPPool{dim}d")(2, 3, stride=2, ceil_mode=True),
        getattr(nn, f"MaxUnpool{dim}d")(3, stride=2, padding=1),
        getattr(nn, f"AdaptiveAvgPool{dim}d")(1),
        getattr(nn, f"AdaptiveMaxPool{dim}d")(2, return_indices=True),
    ]
] + [
    nn.AvgPool2d((3, 2), divisor_override=3), nn.AdaptiveAvgPool2d((None, 7)), nn.MaxPool2d((3, 2)),
    nn.FractionalMaxPool2d(3, output_size=(5, 6)), nn.FractionalMaxPool3d(3, output_ratio=0.5),
]  # fmt: skip
ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Mish(), nn.GELU(), nn.GELU(approximate="tanh"), nn.ELU(0.5), nn.CELU(0.5),
    nn.SELU(), nn.LeakyReLU(0.2), nn.PReLU(), nn.PReLU(4, init=0.1), nn.RReLU(0.1, 0.4), nn.Hardtanh(-2.0, 2.0),
    nn.Hardswish(), nn.Hardsigmoid(), nn.Hardshrink(0.3), nn.Softshrink(0.3), nn.Tanhshrink(), nn.Softsign(),
    nn.Softplus(2.0, 10.0), nn.Sigmoid(), nn.Tanh(), nn.LogSigmoid(), nn.Threshold(0.1, 20.0), nn.GLU(1),
    nn.Softmax(dim=-1), nn.Softmax2d(), nn.Softmin(dim=1), nn.LogSoftmax(dim=1),
]  # fmt: skip
PADDINGS = [
    getattr(nn, f"{kind}Pad{dim}d")(1, *([2.5] if kind == "Constant" else []))
    for kind in ("Zero", "Reflection", "Replication", "Constant", "Circular")
    for dim in "123"
] + [nn.ZeroPad2d((1, 2, 3, 4))]
OTHERS = [
    nn.Linear(3, 5), nn.Linear(3, 5, bias=False), nn.Bilinear(2, 3, 4), nn.Bilinear(2, 3, 4, bias=False),
    nn.Embedding(7, 3), nn.Embedding(7, 3, padding_idx=1, max_norm=2.0, scale_grad_by_freq=True),
    nn.EmbeddingBag(7, 3, mode="sum", include_last_offset=True),
    nn.LayerNorm(4), nn.LayerNorm((3, 4), eps=1e-3, bias=False), nn.LayerNorm(4, elementwise_affine=False),
    nn.GroupNorm(2, 4), nn.GroupNorm(2, 4, affine=False), nn.RMSNorm(4), nn.RMSNorm((2, 4), eps=1e-3),
    nn.LocalResponseNorm(3, alpha=1e-3, beta=0.5, k=2.0), nn.CrossMapLRN2d(3), nn.SyncBatchNorm(4),
    nn.Dropout(0.2), nn.Dropout1d(0.2), nn.Dropout2d(0.2), nn.Dropout3d(0.2), nn.AlphaDropout(0.2), nn.RReLU(0.1, 0.5),
    nn.FeatureAlphaDropout(0.2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    nn.Upsample(size=(4, 5)), nn.Upsample(scale_factor=(2.0, 1.5)), nn.UpsamplingNearest2d(scale_factor=2),
    nn.UpsamplingBilinear2d(size=3), nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ChannelShuffle(2),
    nn.Fold((4, 5), (2, 2), padding=1), nn.Unfold(3, stride=2), nn.Flatten(2), nn.Unflatten(1, (2, 3)), nn.Identity(),
    nn.CosineSimilarity(dim=2), nn.PairwiseDistance(p=1.0, keepdim=True), nn.MultiheadAttention(4, 2, batch_first=True),
    nn.MultiheadAttention(4, 2, bias=False, kdim=3, vdim=5), nn.LSTM(3, 4), nn.GRU(3, 4, 2, bidirectional=True),
    nn.LSTM(3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.1, bidirectional=True, proj_size=2),
    nn.RNN(3, 4, nonlinearity="relu"), nn.RNNCell(3, 4), nn.LSTMCell(3, 4, bias=False), nn.GRUCell(3, 4),
]  # fmt: skip
EVERY = [*CONVOLUTIONS, *NORMS, *POOLS, *ACTIVATIONS, *PADDINGS, *OTHERS]


OWN = {spec.target: spec.codec for spec in specs()}
OWN[nn.MultiheadAttention] = ModuleCodec(
    nn.MultiheadAttention,
    readers={
        "bias": lambda module: module.in_proj_bias is not None,
        "add_bias_kv": lambda module: module.bias_k is not None,
    },
)


def codec_of(target):
    """Return the codec that a class is declared with, or the general one."""
    return OWN.get(target) or ModuleCodec(target)


def tensors(module):
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: (tensor.shape, tensor.dtype, type(tensor)) for name, tensor in state.items()}


@pytest.mark.parametrize("module", EVERY, ids=repr)
def test_layer_comes_back_from_its_constants(module):
    codec = codec_of(type(module))
    config = codec.config(module)
    again = {name: decode(encode(value)) for name, value in config.items()}
    rebuilt = codec.build(again)
    assert type(rebuilt) is type(module)
    assert repr(rebuilt) == repr(module)
    assert codec.config(rebuilt) == config
    assert tensors(rebuilt) == tensors(module)
    assert all(tensor.is_meta for tensor in (*rebuilt.parameters(), *rebuilt.buffers()))


@pytest.mark.parametrize("module", EVERY, ids=repr)
def test_every_constructor_argument_is_saved_or_known_to_be_irrelevant(module):
    signature = inspect.signature(type(module)).parameters
    saved = codec_of(type(module)).config(module)
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.values()):
        signature = {}
    left_out = {name for name in signature if name not in saved and not name.startswith("_")}
    assert left_out <= {"device", "dtype", "inplace", "min_value", "max_value"}


def test_covers_all_layers_of_torch_nn_that_are_not_containers_losses_or_lazy():
    layers = {
        cls
        for name, cls in vars(nn).items()
        if isinstance(cls, type) and issubclass(cls, nn.Module) and not name.endswith("Loss")
        and not name.startswith(("Lazy", "Transformer", "Parameter", "Module")) and name not in (
            "Container", "Sequential", "RNNBase", "RNNCellBase", "NLLLoss2d", "DataParallel",
        )
    }  # fmt: skip
    assert layers - {type(module) for module in EVERY} == set()


def test_building_draws_no_random_numbers():
    before = torch.get_rng_state()
    for module in EVERY:
        codec = codec_of(type(module))
        codec.build(codec.config(module))
    assert torch.equal(torch.get_rng_state(), before)


def test_inplace_is_not_saved():
    config = ModuleCodec(nn.ReLU6).config(nn.ReLU6(inplace=True))
    assert not ModuleCodec(nn.ReLU6).build(config).inplace


class Forgetful(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)


@pytest.mark.parametrize(("target", "name"), [(Forgetful, "width"), (nn.Sequential, "args")])
def test_class_that_forgets_an_argument_is_refused_at_registration(target, name):
    with pytest.raises(TypeError, match=f"'{name}'"):
        ModuleCodec(target)


@pytest.mark.parametrize("name", ["device", "inplace", "no_such_argument"])
def test_unknown_constant_is_refused(name):
    with pytest.raises(TypeError, match=name):
        ModuleCodec(nn.Conv2d).build({"in_channels": 3, "out_channels": 3, "kernel_size": 1, name: "cpu"})


class Window(Op):
    size: tuple[int | Size, ...]
    scale: float = math.inf
    dtype: torch.dtype | None = None

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    "op", [Window((1, 2)), Window((Size(((0, 1),), den=2),), scale=-0.0, dtype=torch.bfloat16), Window((), math.nan)]
)
def test_op_comes_back_from_its_fields(op):
    codec = OpCodec(Window)
    rebuilt = codec.build({name: decode(encode(value)) for name, value in codec.config(op).items()})
    assert repr(rebuilt.config()) == repr(op.config())


@pytest.mark.parametrize(
    ("config", "match"),
    [({}, "size"), ({"size": (1,), "weight": 2}, "weight"), ({"size": object()}, "cannot be saved")],
)
def test_op_refuses_missing_unknown_and_foreign_constants(config, match):
    with pytest.raises(TypeError, match=match):
        OpCodec(Window).build(config)


def test_class_with_its_own_config_is_built_from_it():
    class Mine(nn.Module):
        def __init__(self, sizes):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(size, size) for size in sizes)

        def config(self):
            return {"sizes": [layer.in_features for layer in self.layers]}

    codec = ClassCodec(Mine)
    config = codec.config(Mine([2, 3]))
    assert config == {"sizes": (2, 3)}
    assert tensors(codec.build(config)) == tensors(Mine([2, 3]))


class Scalar:
    """What numpy's numbers look like, without numpy."""

    shape = ()

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value

    def __index__(self):
        return self.value


def test_numbers_of_other_libraries_are_saved_as_pythons():
    class Layer(nn.Module):
        def __init__(self, stride, scale, flag):
            super().__init__()
            self.stride, self.scale, self.flag = stride, scale, flag

    config = ModuleCodec(Layer).config(Layer([Scalar(1), 2], Scalar(0.5), Scalar(True)))
    assert config == {"stride": (1, 2), "scale": 0.5, "flag": True}
    assert [type(value) for value in (*config["stride"], config["scale"], config["flag"])] == [int, int, float, bool]
    assert OpCodec(Window).config(Window((Scalar(1), slice(Scalar(2)))))["size"] == (1, slice(2))


def test_numbers_of_numpy_are_saved(tmp_path):
    numpy = pytest.importorskip("numpy")
    one, two = numpy.int64(1), numpy.int32(2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, (one, two), stride=one, padding=(one, two)), nn.LeakyReLU(numpy.float32(0.5)),
        nn.LayerNorm(numpy.array([5, 7])[1], eps=numpy.float64(1e-3)),
    )  # fmt: skip
    x = torch.rand(2, 3, 6, 4)
    dag = build_from_unstructured_module(model, x)
    dag.save(tmp_path / "graph.safetensors")
    assert torch.equal(DagModule.load(tmp_path / "graph.safetensors")(x), model(x))


class Older(nn.Module):
    def __init__(self, affine=True):
        super().__init__()
        self.affine = affine


def test_a_constant_of_a_newer_release_may_say_what_this_one_does():
    codec = ModuleCodec(Older, implied={"bias": lambda config: config["affine"]})
    assert codec.build({"affine": True, "bias": True}).affine
    assert not codec.build({"affine": False, "bias": False}).affine
    with pytest.raises(TypeError, match="Older has no constant named 'bias'"):
        codec.build({"affine": True, "bias": False})
