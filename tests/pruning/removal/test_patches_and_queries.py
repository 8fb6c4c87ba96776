"""Patches by view and transpose, and queries that pick and sample: right rules whose rounding must not be blamed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core import build_from_unstructured_module
from torch_dag_pruning import Cut, Plan, analyze


class Patches(nn.Module):
    """Attention within patches of 2 x 2 pixels; maps of odd size are resized first (arXiv:2110.02178)."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.LayerNorm(16)
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, x):
        x = F.silu(self.stem(x))
        b, c, h, w = x.shape
        rows, columns = -(-h // 2), -(-w // 2)
        y = F.interpolate(x, size=(2 * rows, 2 * columns), mode="bilinear", align_corners=False)
        y = y.reshape(b * c * rows, 2, columns, 2).transpose(1, 2).reshape(b, c, rows * columns, 4)
        y = y.transpose(1, 3).reshape(b * 4, rows * columns, c)
        q, k, v = self.qkv(self.norm(y)).chunk(3, -1)
        y = y + self.out(F.softmax(q @ k.transpose(1, 2) * 0.25, -1) @ v)
        y = y.view(b, 4, rows * columns, c).transpose(1, 3).reshape(b * c * rows, columns, 2, 2)
        y = y.transpose(1, 2).reshape(b, c, 2 * rows, 2 * columns)
        y = F.interpolate(y, size=(h, w), mode="bilinear", align_corners=False)
        return self.head(torch.cat([x, y], 1)).mean((2, 3))


class Queries(nn.Module):
    """The best pixels become queries, which sample the map at learned offsets (arXiv:2304.08069)."""

    def __init__(self):
        super().__init__()
        self.stem, self.score, self.mix = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 5), nn.Linear(16, 16)
        self.value, self.offset, self.weight = nn.Linear(16, 24), nn.Linear(16, 2 * 3 * 2), nn.Linear(16, 2 * 3)
        self.out = nn.Linear(24, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        best = self.score(tokens).amax(-1).topk(6, dim=1).indices
        queries = self.mix(tokens.gather(1, best[..., None].expand(-1, -1, 16)))
        value = self.value(tokens).view(b, h * w, 2, 12).permute(0, 2, 3, 1).reshape(b * 2, 12, h, w)
        grid = torch.tanh(self.offset(queries)).view(b, 6, 2, 3, 2).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(value, grid, align_corners=False)
        weight = self.weight(queries).view(b, 6, 2, 3).softmax(-1).transpose(1, 2).reshape(b * 2, 1, 6, 3)
        return self.out((sampled * weight).sum(-1).view(b, 24, 6).transpose(1, 2))


@pytest.mark.parametrize(("network", "size", "orbits"), [(Patches, 7, 2), (Patches, 8, 2), (Queries, 8, 5)])
def test_proved_in_both_precisions(network, size, orbits):
    torch.manual_seed(0)
    dag = build_from_unstructured_module(network().eval(), torch.randn(2, 3, size, size))
    analysis = analyze(dag)
    assert len(analysis.orbits) >= orbits, str(analysis)
    for seed in range(2):
        cut = Cut(analysis, Plan.random(analysis, 0.5, seed))
        removed = cut.removed()
        assert cut.prove(removed).worst < 1e-5
        assert cut.compare(removed, dtype=torch.float64).worst < 1e-12
