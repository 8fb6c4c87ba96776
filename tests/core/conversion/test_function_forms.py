"""Functions that torch calls by other names, that take literal flags, or that consist of Python code of their own."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.analysis.cost_table import flops
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, TraceError
from torch_dag_core.serialization import load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")

    @torch.jit.script
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x + x

    @torch.jit.script
    def scaled(x: torch.Tensor, by: float = 2.0) -> torch.Tensor:
        if x.dim() == 2:
            x = doubled(x)
        return (x * by).relu()

    traced = torch.jit.trace(lambda x: x * 2, torch.ones(2))


def rows(batch):
    return torch.randn(batch, 6)


def replaced(x):
    table = torch.zeros(6)
    table.data = torch.arange(6.0)
    table += 1
    return x + table


def replaced_view(x):
    source = torch.ones(6)
    table = torch.zeros(2)
    table.data = source[:2]
    table.mul_(3)
    return x * source


def without_autocast(x):
    with torch.autocast("cpu", enabled=False):
        return x @ x.t()


FUNCTIONS = {
    "logsigmoid": functional.logsigmoid,
    "threshold": lambda x: functional.threshold(x, 0.1, 2.0),
    "threshold by name, in place": lambda x: functional.threshold(x * 1, threshold=0.1, value=2.0, inplace=True),
    "torch.threshold": lambda x: torch.threshold(x, -0.5, 20.0),
    "threshold_": lambda x: functional.threshold_(x * 1, 0.5, 0.0),
    "hardtanh": lambda x: functional.hardtanh(x, -0.5, 0.5),
    "hardtanh by name": lambda x: functional.hardtanh(x, max_val=0.1),
    "rrelu": functional.rrelu,
    "rrelu, always random": lambda x: functional.rrelu(x, 0.2, 0.4, training=True),
    "rrelu, in place": lambda x: functional.rrelu(x * 1, 0.2, inplace=True),
    "dropout, always": lambda x: functional.dropout(x, 0.5, training=True),
    "dropout, never": lambda x: functional.dropout(x, 0.5, training=False),
    "dropout of channels, always": lambda x: functional.dropout1d(x[:, None], 0.5, training=True),
    "alpha dropout, always": lambda x: functional.alpha_dropout(x, 0.3, training=True),
    "attention with dropout, always": lambda x: functional.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], dropout_p=0.3
    ),
    "a scripted function": lambda x: scaled(x),  # noqa: PLW0108 - scripted functions cannot be copied
    "a scripted function by name": lambda x: scaled(x=x, by=0.5),
    "data of a constant": replaced,
    "data of a constant shared": replaced_view,
    "autocast switched off": without_autocast,
    "sum and product by name": lambda x: torch.baddbmm(
        x.view(-1, 2, 3), batch1=x.view(-1, 2, 3), batch2=torch.eye(3).expand(x.shape[0], 3, 3), beta=0.5
    ),
    "addmm by name": lambda x: torch.addmm(x, mat2=torch.eye(6), mat1=x),
    "fake quantization": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255),
    "fake quantization of channels": lambda x: torch.fake_quantize_per_channel_affine(
        x, torch.full((6,), 0.2), torch.zeros(6, dtype=torch.int32), 1, -8, 7
    ),
    "triplet loss": lambda x: functional.triplet_margin_with_distance_loss(x, x.roll(1, 1), x.flip(1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_followed(name, reloaded):
    reloaded(FUNCTIONS[name], rows, relative=1e-6)


class Experts(nn.Module):
    """A linear map of its own for each half of the rows."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(6, 16), function
        self.weight = nn.Parameter(torch.randn(2, 16, 8))

    def forward(self, x):
        offsets = torch.tensor([2, 4], dtype=torch.int32)
        return self.function(self.fc(x), self.weight, offs=offsets)


@pytest.mark.parametrize(("library", "name"), [(functional, "grouped_mm"), (torch, "_grouped_mm")])
def test_grouped_products_are_followed(library, name, reloaded):
    if not hasattr(library, name):
        pytest.skip("this torch has no such function")
    reloaded(Experts(getattr(library, name)), lambda _: rows(4), relative=1e-5)


class Modes(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.fc, self.bn, self.function = nn.Linear(6, 6), nn.BatchNorm1d(6), function
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)

    def forward(self, x):
        return self.function(self, self.fc(x))


FLAGS = {
    "frozen batch norm": lambda m, x: functional.batch_norm(
        x, m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias, training=False
    ),
    "frozen batch norm without scale": lambda m, x: functional.batch_norm(x, m.bn.running_mean, m.bn.running_var),
    "dropout in evaluation alone": lambda m, x: functional.dropout(x, 0.5, training=not m.training),
    "rrelu by mode": lambda m, x: functional.rrelu(x, training=m.training),
    "rrelu in evaluation alone": lambda m, x: functional.rrelu(x, training=not m.training),
    "another count by mode": lambda m, x: torch.cumprod(x, 1) if m.training else torch.cumprod(x, 0),
    "another margin by mode": lambda m, x: functional.softmin(x, dim=1 if m.training else 0),
}


@pytest.mark.parametrize("name", FLAGS)
def test_literal_flags_hold_in_every_mode(name, reloaded):
    reloaded(Modes(FLAGS[name]), rows, relative=1e-6)


@pytest.mark.parametrize("training", [lambda _: True, lambda m: not m.training], ids=["always", "in evaluation"])
def test_statistics_that_change_in_evaluation_are_refused_by_line(training):
    def run(m, x):
        return functional.batch_norm(x, m.bn.running_mean, m.bn.running_var, training=training(m))

    with pytest.raises(
        TraceError, match=rf"changes its running statistics in evaluation.*:{run.__code__.co_firstlineno + 1}"
    ):
        build_from_unstructured_module(Modes(run), rows(2))


def test_a_leaky_relu_of_random_slopes_is_one_vertex(reloaded):
    dag = reloaded(nn.Sequential(nn.Linear(6, 6), nn.RReLU(0.1, 0.4)), rows, relative=1e-6)
    assert [type(vertex.module) for vertex in dag.inner_vertices] == [nn.Linear, nn.RReLU]


def test_a_traced_function_is_refused_by_name():
    with pytest.raises(TraceError, match=r"TorchScript function .* is a call that the trace cannot see.*test_function"):
        convert(lambda x: traced(x[0]) + x)


def test_data_of_what_follows_the_inputs_is_refused():
    def run(x):
        x.data = torch.zeros_like(x)
        return x * 2

    with pytest.raises(TraceError, match="assigns to the data of a tensor"):
        convert(run)


def convert(function):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return function(self.fc(x))

    return build_from_unstructured_module(Model(), rows(2))


def test_a_scripted_functions_class_is_as_it_was():
    before = vars(torch._C.ScriptFunction)["__call__"]
    convert(lambda x: scaled(x, by=3.0))
    assert vars(torch._C.ScriptFunction)["__call__"] is before


# Modules ---------------------------------------------------------------------------------------------------------


def images(batch):
    return torch.randn(batch, 3, 8, 6)


class AttentionPool(nn.Module):
    """The pooling of CLIP's residual networks (arXiv:2103.00020): the mean attends to all places."""

    def __init__(self, *, weights=False):
        super().__init__()
        self.conv, self.weights = nn.Conv2d(3, 4, 3, padding=1), weights
        self.q, self.k, self.v, self.out = (nn.Linear(4, width) for width in (4, 4, 4, 5))

    def forward(self, x):
        x = self.conv(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x])
        result, weights = functional.multi_head_attention_forward(
            query=x[:1], key=x, value=x, embed_dim_to_check=x.shape[-1], num_heads=2,
            q_proj_weight=self.q.weight, k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
            in_proj_weight=None, in_proj_bias=torch.cat([self.q.bias, self.k.bias, self.v.bias]), bias_k=None,
            bias_v=None, add_zero_attn=False, dropout_p=0.1, out_proj_weight=self.out.weight,
            out_proj_bias=self.out.bias, use_separate_proj_weight=True, training=self.training,
            need_weights=self.weights,
        )  # fmt: skip
        return (result.squeeze(0), weights) if self.weights else result.squeeze(0)


@pytest.mark.parametrize("weights", [False, True])
def test_functional_attention_with_separate_projections(weights, reloaded):
    reloaded(AttentionPool(weights=weights), images, relative=1e-5)


class JointAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)

    def forward(self, x):
        a = self.attention
        return functional.multi_head_attention_forward(
            x, x, x, 4, 2, a.in_proj_weight, a.in_proj_bias, a.bias_k, a.bias_v, True, 0.0,
            a.out_proj.weight, a.out_proj.bias, training=self.training,
        )  # fmt: skip


def test_functional_attention_with_a_joint_projection(reloaded):
    reloaded(JointAttention(), lambda n: torch.randn(n, 2, 4), relative=1e-5)


class Decoder(nn.Module):
    """Halve an image and bring it back to the size that it had."""

    def __init__(self, size):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up, self.size = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1), size

    def forward(self, x):
        return self.up(self.down(x), self.size(x))


@pytest.mark.parametrize(
    "size",
    [torch.Tensor.size, lambda x: x.shape[2:], lambda _: [8, 6], lambda _: None],
    ids=["all", "end", "list", "none"],
)
def test_transposed_convolutions_take_a_size(size, reloaded):
    reloaded(Decoder(size), images, relative=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 24, 22), (1, 3, 40, 6), (2, 3, 16, 10), (3, 3, 7, 5), (1, 3, 9, 12)])
def test_a_size_is_right_or_refused_at_other_image_sizes(shape):
    model = Decoder(lambda x: x.shape[2:]).eval()
    dag, x = build_from_unstructured_module(model, images(2)), torch.randn(shape)
    try:
        result = dag(x)
    except InputError:
        assert (shape[2] - 8) % 16 or (shape[3] - 6) % 16  # the steps at which the rounding was seen
    else:
        torch.testing.assert_close(result, model(x))


def test_a_transposed_convolution_is_one_vertex_where_it_takes_no_size(faithful):
    dag = faithful(Decoder(lambda _: None), images)
    assert [type(vertex.module) for vertex in dag.inner_vertices] == [nn.Conv2d, nn.ConvTranspose2d]


@pytest.mark.parametrize("shape", [(3, 4, 7), (3, 4, 4, 5, 6)], ids=["sequence", "volume"])
def test_sizes_of_sequences_and_volumes(shape, reloaded):
    rank = len(shape) - 2
    kind, back = getattr(nn, f"Conv{rank}d"), getattr(nn, f"ConvTranspose{rank}d")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = kind(4, 4, 2, stride=2), back(4, 4, 2, stride=2)

        def forward(self, x):
            return self.up(self.down(x), output_size=x.shape[2:])

    reloaded(Model(), lambda n: torch.randn(n, *shape[1:]), relative=1e-5)


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

            make = FakeQuantize.with_args(
                observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
            )
            self.fc, self.quantizer = nn.Linear(6, 6), make()
        self(rows(8))

    def forward(self, x):
        return self.quantizer(self.fc(x))


def test_an_observing_quantizer_is_refused_by_name_with_a_way_out(reloaded):
    model = Quantized()
    with pytest.raises(TraceError, match=r"'quantizer'.*FakeQuantize observes the data.*disable_observer"):
        build_from_unstructured_module(model, rows(2))
    model.apply(torch.ao.quantization.disable_observer)
    reloaded(model, rows, relative=1e-6)


# Operators of torchvision ------------------------------------------------------------------------------------------


class Deformed(nn.Module):
    def __init__(self, *, masked):
        super().__init__()
        ops = pytest.importorskip("torchvision.ops")
        self.offset, self.conv, self.masked = (
            nn.Conv2d(3, 18, 3, padding=1),
            ops.DeformConv2d(3, 4, 3, padding=1),
            masked,
        )

    def forward(self, x):
        mask = self.offset(x)[:, :9].sigmoid() if self.masked else None
        return self.conv(x, self.offset(x), mask)


class Pooled(nn.Module):
    def __init__(self, name, **options):
        super().__init__()
        self.function = getattr(pytest.importorskip("torchvision.ops"), name)
        self.conv, self.options = nn.Conv2d(3, 4, 3, padding=1), options

    def forward(self, x):
        boxes = torch.tensor([[0.0, 0, 0, 4, 4], [0, 1, 1, 5, 7]])
        return self.function(self.conv(x), boxes, **self.options)


MODELS = {
    "deform_conv2d": lambda: Deformed(masked=False),
    "deform_conv2d with a mask": lambda: Deformed(masked=True),
    "roi_align": lambda: Pooled("roi_align", output_size=2),
    "roi_align, aligned": lambda: Pooled("roi_align", output_size=(2, 3), spatial_scale=0.5, aligned=True),
    "roi_pool": lambda: Pooled("roi_pool", output_size=2),
    "ps_roi_align": lambda: Pooled("ps_roi_align", output_size=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_operators_of_torchvision_are_followed(name, reloaded):
    dag = reloaded(MODELS[name](), images, relative=1e-5)
    calls = [vertex.module.function for vertex in dag.inner_vertices if hasattr(vertex.module, "function")]
    assert [call for call in calls if call.startswith("torchvision.")] == [
        f"torchvision.{name.partition(' ')[0].strip(',')}"
    ]


def test_the_cost_of_a_deformable_convolution_is_that_of_sampling_and_convolving():
    dag = build_from_unstructured_module(MODELS["deform_conv2d"](), images(2))
    (cost,) = [row.flops for row in flops(dag, images(1)).rows if "deform" in row.name]
    places = 8 * 6
    assert cost == 2 * places * 4 * 3 * 9 + 8 * places * 3 * 9 + places * 4


def test_a_file_that_needs_torchvision_says_so(tmp_path, monkeypatch):
    from torch_dag_core.errors import SerializationError
    from torch_dag_core.ops import torch_call

    build_from_unstructured_module(MODELS["roi_align"](), images(2)).save(tmp_path / "dag.safetensors")
    known = {k: v for k, v in torch_call.allowed_functions().items() if not k.startswith("torchvision.")}
    monkeypatch.setattr(torch_call, "allowed_functions", lambda: known)
    monkeypatch.setitem(__import__("sys").modules, "torchvision", None)
    with pytest.raises((SerializationError, ValueError), match=r"'torchvision\.roi_align'.*pip install torchvision"):
        load(tmp_path / "dag.safetensors")


def test_operators_of_other_libraries_are_not_taken_for_torchs():
    with torch.library._scoped_library("torch_dag_test", "DEF") as library:
        library.define("relu(Tensor x) -> Tensor")
        library.impl("relu", lambda x: x.clone(), "CompositeImplicitAutograd")
        with pytest.raises(TraceError, match="'torch_dag_test::relu', called in module"):
            convert(torch.ops.torch_dag_test.relu)
    del torch.ops.torch_dag_test  # which PyTorch's own tables would list
