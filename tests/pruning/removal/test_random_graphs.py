"""Random programs of convolutions, norms, joins, cuts and reshapes, under random plans that may empty orbits."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, removal_proof
from torch_dag_pruning.plan.plan import Plan

SIDE = 4
KINDS = (
    "conv", "grouped", "depthwise", "batch_norm", "group_norm", "layer_norm", "act", "add", "cat", "split", "shuffle",
    "excite", "gate", "linear", "attend", "pad", "mean_centred", "softmax",
)  # fmt: skip


class Program(nn.Module):
    """Runs instructions over a growing list of feature maps; each reads the latest map, joins read an earlier one."""

    def __init__(self, instructions):
        super().__init__()
        self.instructions = instructions
        self.layers = nn.ModuleDict()
        self.widths = [6]
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        for place, (kind, number, back) in enumerate(instructions):
            self.widths.append(getattr(self, f"make_{kind}")(str(place), self.widths[-1], number, back))
        self.head = nn.Conv2d(self.widths[-1], 3, 1)

    def forward(self, x):
        maps = [self.stem(x)]
        for place, (kind, number, back) in enumerate(self.instructions):
            maps.append(getattr(self, f"run_{kind}")(str(place), maps, number, back))
        return self.head(maps[-1]).mean((2, 3))

    def partner(self, maps, back):
        """Return an earlier map of the same width as the latest, or the latest itself."""
        same = [m for m in maps[:-1] if m.shape[1] == maps[-1].shape[1]]
        return same[back % len(same)] if same else maps[-1]

    def make_conv(self, name, width, number, back):
        self.layers[name] = nn.Conv2d(width, 4 + 2 * number, 3, padding=1)
        return 4 + 2 * number

    def run_conv(self, name, maps, number, back):
        return self.layers[name](maps[-1])

    def make_grouped(self, name, width, number, back):
        groups = next(g for g in (4, 3, 2, 1) if width % g == 0)
        self.layers[name] = nn.Conv2d(width, groups * (1 + number), 1, groups=groups)
        return groups * (1 + number)

    run_grouped = run_conv

    def make_depthwise(self, name, width, number, back):
        self.layers[name] = nn.Conv2d(width, width * (1 + number % 2), 3, padding=1, groups=width)
        return width * (1 + number % 2)

    run_depthwise = run_conv

    def make_batch_norm(self, name, width, number, back):
        self.layers[name] = nn.BatchNorm2d(width)
        return width

    run_batch_norm = run_conv

    def make_group_norm(self, name, width, number, back):
        self.layers[name] = nn.GroupNorm(next(g for g in (4, 3, 2, 1) if width % g == 0), width)
        return width

    run_group_norm = run_conv

    def make_layer_norm(self, name, width, number, back):
        self.layers[name] = nn.LayerNorm(width)
        return width

    def run_layer_norm(self, name, maps, number, back):
        return self.layers[name](maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def make_act(self, name, width, number, back):
        return width

    def run_act(self, name, maps, number, back):
        return (F.gelu, torch.sigmoid, torch.cos)[number % 3](maps[-1])

    make_add = make_shuffle = make_gate = make_mean_centred = make_softmax = make_act

    def run_add(self, name, maps, number, back):
        return maps[-1] + self.partner(maps, back)

    def make_cat(self, name, width, number, back):
        return width + self.widths[back % len(self.widths)]

    def run_cat(self, name, maps, number, back):
        return torch.cat([maps[-1], maps[back % len(maps)]], 1)

    def make_split(self, name, width, number, back):
        return width if width < 3 else max(1 + number % (width - 1), width - 1 - number % (width - 1))

    def run_split(self, name, maps, number, back):
        width = maps[-1].shape[1]
        if width < 3:
            return maps[-1]
        cut = 1 + number % (width - 1)
        parts = maps[-1].split([cut, width - cut], 1)
        return max(parts, key=lambda part: part.shape[1])

    def run_shuffle(self, name, maps, number, back):
        b, c, h, w = maps[-1].shape
        g = next(g for g in (4, 3, 2, 1) if c % g == 0)
        return maps[-1].reshape(b, g, c // g, h, w).transpose(1, 2).reshape(b, c, h, w)

    def make_excite(self, name, width, number, back):
        self.layers[name] = nn.Sequential(nn.Linear(width, 2 + number), nn.GELU(), nn.Linear(2 + number, width))
        return width

    def run_excite(self, name, maps, number, back):
        gate = self.layers[name](maps[-1].mean((2, 3)))
        return maps[-1] * torch.sigmoid(gate)[:, :, None, None]

    def run_gate(self, name, maps, number, back):
        return maps[-1] * torch.tanh(self.partner(maps, back))

    def make_linear(self, name, width, number, back):
        self.layers[name] = nn.Linear(width, 3 + number)
        return 3 + number

    def run_linear(self, name, maps, number, back):
        return self.layers[name](maps[-1].flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (SIDE, SIDE))

    def make_attend(self, name, width, number, back):
        heads, d = 1 + number % 3, 2 + number // 3
        self.layers[name] = nn.ModuleList([nn.Linear(width, 3 * heads * d), nn.Linear(heads * d, width)])
        return width

    def run_attend(self, name, maps, number, back):
        heads, d = 1 + number % 3, 2 + number // 3
        x = maps[-1].flatten(2).transpose(1, 2)
        b, n, _ = x.shape
        q, k, v = self.layers[name][0](x).reshape(b, n, 3, heads, d).permute(2, 0, 3, 1, 4).unbind(0)
        if back % 2:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * d**-0.5).softmax(-1) @ v
        x = x + self.layers[name][1](y.transpose(1, 2).reshape(b, n, heads * d))
        return x.transpose(1, 2).unflatten(2, (SIDE, SIDE))

    def make_pad(self, name, width, number, back):
        return width + 1 + number % 3

    def run_pad(self, name, maps, number, back):
        return F.pad(maps[-1], (0, 0, 0, 0, 1, number % 3))

    def run_mean_centred(self, name, maps, number, back):
        x = maps[-1]
        return x - x.mean(1, keepdim=True)

    def run_softmax(self, name, maps, number, back):
        return maps[-1].softmax(1)


instructions = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=7)


@example([("conv", 0, 0), ("mean_centred", 0, 0), ("mean_centred", 0, 0)], 0, 1)  # what is left is rounding errors
@example([("softmax", 0, 0)], 1, 1)  # weights over nothing at all
@given(instructions, st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_masked_equals_removed(program, seed, emptied):
    torch.manual_seed(seed)
    model = awaken(Program(program), seed).eval()
    x = torch.randn(2, 3, SIDE, SIDE)
    dag = build_from_unstructured_module(model, x)
    analysis = analyze(dag)
    plan = Plan.random(analysis, 0.5, seed)
    for orbit in analysis.orbits[seed % emptied :: emptied] if seed % 2 else ():
        plan = plan.with_orbit(orbit.key, plan.kept[orbit.key][: orbit.minimum])
    text = str(dag)
    smaller = Cut(analysis, plan).removed()
    assert removal_proof(analysis, plan, smaller, dtype=torch.float64).worst < 1e-10
    assert str(dag) == text
    assert all(0 not in tensor.shape for tensor in smaller.state_dict().values())
    smaller.verify()
    counts = plan.atom_counts(analysis)
    if all(counts.values()):
        assert analyze(smaller).cost() == analysis.cost(counts)
    assert sum(p.numel() for p in smaller.parameters()) <= analysis.parameters_count(counts)
