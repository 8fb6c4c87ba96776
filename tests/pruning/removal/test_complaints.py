"""What users of other pruning tools complained about, where it concerns the network that is left."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core import build_from_unstructured_module, flops, load
from torch_dag_core.testing import awaken
from torch_dag_pruning import Plan, analyze, carry_optimizer, remove_channels


def conv(*args, **options):
    return nn.Conv2d(*args, **options)


class Net(nn.Module):
    """Two convolutions with what a complaint is about between them."""

    def __init__(self, between, width=24, out=24, groups=1):
        super().__init__()
        self.a, self.b, self.head = conv(3, width, 3), conv(out, 16, 1, groups=groups), nn.Linear(16, 5)
        self.between = between

    def forward(self, x):
        return self.head(F.relu(self.b(self.between(F.relu(self.a(x))))).mean((2, 3)))


class Of(nn.Module):
    """A module that calls a function."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


def pruned(model, x, keep=0.5, criterion="l2", **options):
    """Return a model's graph and what is left of it at a share of its FLOPs; the removal compares every vertex."""
    dag = build_from_unstructured_module(awaken(model).eval(), x)
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, criterion, keep, **options)
    return dag, remove_channels(dag, plan, analysis=analysis), plan


def check(model, *shape, keep=0.5, shrinks=("a.weight",), **options):
    """Prune a model at random, and return the graph that is left, in which these parameters have become smaller."""
    torch.manual_seed(0)
    x = torch.randn(2, *shape)
    dag, left, _ = pruned(model, x, keep, "random", **options)
    assert left(x).shape == dag(x).shape
    for name in shrinks:
        assert left.state_dict()[name].numel() < dag.state_dict()[name].numel(), name
    return left


IMAGE = (3, 12, 12)


def test_torch_pruning_146_a_tensor_concatenated_with_itself():
    left = check(Net(Of(lambda x: torch.cat([x, x], 1)), out=48), *IMAGE, shrinks=("a.weight", "b.weight"))
    assert left.state_dict()["b.weight"].shape[1] == 2 * left.state_dict()["a.weight"].shape[0]


class C2f(nn.Module):
    """The block of YOLOv8 that splits its channels and concatenates all that comes of the second half."""

    def __init__(self, width=24, hidden=16, depth=2):
        super().__init__()
        self.cv1, self.cv2 = conv(width, 2 * hidden, 1), conv((2 + depth) * hidden, width, 1)
        self.m = nn.ModuleList(conv(hidden, hidden, 3, padding=1) for _ in range(depth))

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


def test_torch_pruning_147_chunk_and_concatenation_of_c2f():
    inner = ("between.cv1.weight", "between.cv2.weight", "between.m.0.weight", "between.m.1.weight")
    check(Net(C2f()), *IMAGE, shrinks=("a.weight", "b.weight", *inner))


def test_torch_pruning_179_a_convolution_with_one_output_channel_is_not_depthwise():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = conv(24, 1, 1)

        def forward(self, x):
            return x * self.gate(x).sigmoid()

    left = check(Net(Gate()), *IMAGE)
    assert left.state_dict()["between.gate.weight"].shape[:2] == (1, left.state_dict()["a.weight"].shape[0])


@pytest.mark.parametrize(
    "fn", [lambda x: x.view(len(x), 4, 6, 10, 10).mean(2), lambda x: x.unflatten(1, (2, 12))[:, 0]]
)
def test_torch_pruning_125_a_view_to_more_dimensions(fn):
    out = fn(torch.zeros(2, 24, 10, 10)).shape[1]
    check(Net(Of(fn), out=out), *IMAGE, shrinks=("a.weight", "b.weight"))


def test_torch_pruning_98_pixel_shuffle_takes_channels_in_blocks():
    left = check(Net(nn.PixelShuffle(2), out=6), *IMAGE, shrinks=("a.weight", "b.weight"))
    assert left.state_dict()["a.weight"].shape[0] == 4 * left.state_dict()["b.weight"].shape[1]


def test_torch_pruning_420_channel_shuffle_before_a_grouped_convolution():
    check(Net(nn.ChannelShuffle(4), groups=2), *IMAGE, shrinks=("a.weight", "b.weight"))


class Attention(nn.Module):
    """Self-attention that is told its sizes once, in its constructor."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.num_heads, self.head_dim, self.hidden_size = heads, width // heads, width
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def attend(self, q, k, v):
        weights = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        return weights @ v

    def forward(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(*qkv.unbind(0)).transpose(1, 2).reshape(b, n, self.hidden_size))


class FusedAttention(Attention):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("kinds", ["heads", "head_widths"])
def test_torch_pruning_340_no_stale_number_of_heads_or_head_size(kinds):
    check(Attention(), 7, 32, shrinks=("qkv.weight", "proj.weight"), keep=0.7, kinds=kinds)


def test_torch_pruning_357_fused_attention_is_pruned_like_the_spelled_out_one():
    torch.manual_seed(0)
    x, spelled, fused = torch.randn(2, 7, 32), Attention(), FusedAttention()
    fused.load_state_dict(spelled.state_dict())
    plans = [pruned(model, x, 0.5)[2] for model in (spelled, fused)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_torch_pruning_44_recurrent_layers(kind):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn, self.head = nn.Linear(8, 12), kind(12, 16, 2, batch_first=True), nn.Linear(16, 5)

        def forward(self, x):
            return self.head(self.rnn(self.embed(x))[0][:, -1])

    check(Recurrent(), 6, 8, shrinks=("embed.weight", "rnn.weight_hh_l0", "rnn.weight_ih_l1", "head.weight"))


def test_torch_pruning_43_more_layers_than_calls_can_nest_without_recursion():
    torch.manual_seed(0)
    layers = [layer for _ in range(600) for layer in (nn.Linear(4, 4), nn.Tanh())]
    _, left, plan = pruned(nn.Sequential(*layers), torch.randn(2, 4), 0.9, "random")
    assert sum(plan.counts().values()) < sum(plan.sizes.values())
    assert len(left.inner_vertices) == 1200


def test_oto_7_and_nni_3372_models_with_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.text, self.head = conv(3, 16, 3), nn.Linear(8, 16), nn.Linear(16, 5)

        def forward(self, image, text):
            return self.head(torch.relu(self.image(image).mean((2, 3)) + self.text(text)))

    torch.manual_seed(0)
    x = (torch.randn(2, *IMAGE), torch.randn(2, 8))
    dag, left, _ = pruned(Two(), x)
    assert left(*x).shape == dag(*x).shape
    assert left.state_dict()["image.weight"].shape[0] == left.state_dict()["text.weight"].shape[0] < 16


@pytest.fixture
def small():
    torch.manual_seed(0)
    x = torch.randn(2, *IMAGE)
    return (*pruned(Net(nn.BatchNorm2d(24)), x), x)


def test_nncf_1038_and_pytorch_36214_parameters_flops_and_the_file_become_smaller(small, tmp_path):
    dag, left, *_ = small
    assert sum(p.numel() for p in left.parameters()) < sum(p.numel() for p in dag.parameters())
    assert flops(left).flops <= 0.5 * flops(dag).flops
    dag.save(tmp_path / "dense.safetensors")
    left.save(tmp_path / "left.safetensors")
    assert (tmp_path / "left.safetensors").stat().st_size < (tmp_path / "dense.safetensors").stat().st_size


def test_torch_pruning_139_and_363_a_pruned_network_loads_and_trains_where_its_source_is_missing(small, tmp_path):
    _, left, _, x = small
    left.save(tmp_path / "left.safetensors")
    torch.save((x, left(x).detach()), tmp_path / "data.pt")
    program = (
        "import sys, torch; sys.modules['torch_dag_pruning'] = None\n"
        "import torch_dag_core as td\n"
        "net = td.load('left.safetensors'); x, y = torch.load('data.pt')\n"
        "assert torch.equal(net(x), y)\n"
        "net.train()(x).sum().backward(); assert all(p.grad is not None for p in net.parameters())"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    again = load(tmp_path / "left.safetensors")
    again.load_state_dict(copy.deepcopy(left.state_dict()))


def test_torch_pruning_63_pruned_layers_keep_training():
    torch.manual_seed(0)
    x = torch.randn(8, *IMAGE)
    dag = build_from_unstructured_module(awaken(Net(nn.BatchNorm2d(24))), x)
    optimizer = torch.optim.AdamW(dag.parameters())
    dag(x).square().mean().backward()
    optimizer.step()
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "l2", 0.5)
    left = remove_channels(dag, plan, analysis=analysis)
    carried = carry_optimizer(optimizer, dag, left, plan, analysis=analysis)
    before = copy.deepcopy(left.state_dict())
    left(x).square().mean().backward()
    carried.step()
    assert all(not torch.equal(before[name], value) for name, value in left.named_parameters())


def test_model_optimizer_145_a_reloaded_pruned_network_compiles(small, tmp_path):
    _, left, _, x = small
    left.save(tmp_path / "left.safetensors")
    again = load(tmp_path / "left.safetensors")
    compiled = torch.compile(again, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), left(x))
