"""Blocks, wraps and rules on graphs that conversion made."""

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.patterns.regions import residual_blocks
from torch_dag_core.patterns.rewriting import Pattern, Rule, chain, find, rewrite


class Bottleneck(nn.Module):
    def __init__(self, width, *, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(width, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return self.relu(y)


class PreNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.proj((q @ k.transpose(-2, -1)).softmax(-1) @ v)
        return x + self.mlp(self.norm2(x))


@pytest.fixture
def residual_net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *[Bottleneck(8, stride=s) for s in (1, 2, 1)], nn.Flatten()).eval()
    sample = torch.randn(2, 3, 10, 10)
    return build_from_unstructured_module(model, sample).eval(), sample


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    sample = torch.randn(2, 5, 8)
    return build_from_unstructured_module(nn.Sequential(*[PreNorm(8) for _ in range(3)]).eval(), sample).eval(), sample


def modules_of(block, kind):
    return [type(vertex.module) for vertex in block].count(kind)


def test_each_bottleneck_is_a_block_with_its_shortcut(residual_net):
    dag, _ = residual_net
    blocks = residual_blocks(dag)
    assert [modules_of(block, nn.Conv2d) for block in blocks] == [2, 3, 2]
    assert all(modules_of(block, nn.BatchNorm2d) == 2 for block in blocks)


def test_each_transformer_layer_is_two_blocks(transformer):
    dag, _ = transformer
    blocks = residual_blocks(dag)
    assert [modules_of(block, nn.GELU) for block in blocks] == [0, 1] * 3
    assert all(modules_of(block, nn.LayerNorm) == 1 for block in blocks)
    assert all(modules_of(block, nn.Linear) == 2 for block in blocks)


@pytest.mark.parametrize("model", ["residual_net", "transformer"])
def test_wrapped_blocks_compute_the_same_and_come_apart_again(model, request):
    dag, sample = request.getfixturevalue(model)
    before, keys = dag(sample), set(dag.state_dict())
    blocks = residual_blocks(dag)
    for index, block in enumerate(blocks):
        wrapped = dag.wrap_subgraph(block, name=f"block{index}")
        assert (len(wrapped.predecessors), len(wrapped.module.outputs)) == (1, 1)
    dag.verify()
    assert torch.equal(dag(sample), before)
    flat = dag.flatten()
    assert torch.equal(flat(sample), before)
    assert len(flat.state_dict()) == len(keys)


def test_every_convolution_gets_a_norm_that_changes_nothing(residual_net):
    dag, sample = residual_net
    before = dag(sample)
    followed = {match["conv"] for match in find(dag, Pattern(nn.BatchNorm2d, Pattern(nn.Conv2d, name="conv")))}

    def add_norm(match, dag):
        if match.root in followed:
            return False
        followed.add(match.root)
        dag.insert_after(match.root, nn.BatchNorm2d(match.root.module.out_channels, eps=0.0).eval())
        return True

    assert rewrite(dag, Rule(Pattern(nn.Conv2d), add_norm)).steps == 2
    assert torch.allclose(dag(sample), before)


def test_folding_norms_into_convolutions_keeps_the_outputs(residual_net):
    dag, sample = residual_net
    before = dag(sample)

    def fold(match, dag):
        conv, norm = match.vertices
        dag.replace_module(conv, nn.utils.fuse_conv_bn_eval(conv.module, norm.module))
        dag.remove_vertex(norm)
        return True

    assert rewrite(dag, Rule(chain(nn.Conv2d, nn.BatchNorm2d), fold)).steps == 6
    assert not find(dag, Pattern(nn.BatchNorm2d))
    assert torch.allclose(dag(sample), before, atol=1e-6)
    dag.verify()
