"""Random graphs of many ops at once, pruned at random; and an oracle that knows nothing of masks.

``RANDOM_NETWORKS=500 pytest --hypothesis-seed=7`` draws that many graphs from a seed, in place of a few that are always
the same.
"""

import math
import os

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from torch_dag_core.graph.builtin_ops import GetItem
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add, Mul
from torch_dag_core.ops.layout import Cat, Permute, Reshape, Split
from torch_dag_core.ops.normalization import Normalize
from torch_dag_core.ops.reduction import Mean
from torch_dag_pruning import Plan, analyze
from torch_dag_pruning.cut import Cut, removal_proof

SIZE = 4
NETWORKS = int(os.environ.get("RANDOM_NETWORKS", "0"))


class Builder:
    """A graph of (batch, channels, 4, 4) values, each with its number of channels."""

    def __init__(self, draw):
        self.draw, self.dag = draw, DagModule()
        self.values = []
        self.put(nn.Conv2d(3, 8, 1), 8, self.dag.add_input("x"))
        self.put(nn.Conv2d(3, 12, 1), 12, self.dag.input_vertices[0])

    def put(self, module, channels, *operands, keep=True):
        name = self.dag.unique_name(type(module).__name__.lower())
        vertex = self.dag.add_vertex(name, module, operands)
        if keep:
            self.values.append((vertex, channels))
        return vertex

    def pick(self, channels=None):
        fitting = [value for value in self.values if channels in (None, value[1])]
        return self.draw(st.sampled_from(fitting))

    def divisor(self, *numbers):
        common = math.gcd(*numbers)
        return self.draw(st.sampled_from([d for d in range(1, common + 1) if common % d == 0]))

    def step(self):
        x, n = self.pick()
        getattr(self, self.draw(st.sampled_from(STEPS)))(x, n)

    def convolution(self, x, n):
        out = self.draw(st.sampled_from([4, 6, 8, 12]))
        self.put(nn.Conv2d(n, out, 3, padding=1, groups=self.divisor(n, out)), out, x)

    def depthwise(self, x, n):
        self.put(nn.Conv2d(n, n, 3, padding=1, groups=n), n, x)

    def batch_norm(self, x, n):
        self.put(nn.BatchNorm2d(n), n, x)

    def group_norm(self, x, n):
        self.put(nn.GroupNorm(self.divisor(n), n), n, x)

    def layer_norm(self, x, n):
        last = self.put(Permute((0, 2, 3, 1)), n, x, keep=False)
        self.put(Permute((0, 3, 1, 2)), n, self.put(nn.LayerNorm(n), n, last, keep=False))

    def activation(self, x, n):
        self.put(nn.GELU(), n, x)

    def softmax(self, x, n):
        self.put(nn.Softmax(1), n, x)

    def normalize(self, x, n):
        self.put(Normalize(dim=1), n, x)

    def add(self, x, n):
        self.put(Add(), n, x, self.pick(n)[0])

    def gate(self, x, n):
        pooled = self.put(Mean((2, 3), keepdim=True), n, x, keep=False)
        self.put(Mul(), n, x, self.put(nn.Sigmoid(), n, pooled, keep=False))

    def attend(self, x, n):
        self.put(Mul(), n, x, self.put(Mean(1, keepdim=True), 1, self.pick()[0], keep=False))

    def join(self, x, n):
        y, m = self.pick()
        if n + m <= 24:
            self.put(Cat(1), n + m, x, y)

    def cut(self, x, n):
        at = self.draw(st.integers(2, n - 2)) if n >= 4 else 1
        pieces = self.put(Split((at, n - at), 1), 0, x, keep=False)
        for index, size in enumerate((at, n - at)):
            self.put(GetItem(index), size, pieces)

    def shuffle(self, x, n):
        groups = self.divisor(n)
        rows = self.put(Reshape((-1, groups, n // groups, SIZE, SIZE)), 0, x, keep=False)
        self.put(Reshape((-1, n, SIZE, SIZE)), n, self.put(Permute((0, 2, 1, 3, 4)), 0, rows, keep=False))

    def finish(self):
        """Let every value that nothing reads yet take part in the output."""
        loose = [(v, n) for v, n in self.values if not v.uses]
        total = None
        for vertex, n in loose:
            head = self.put(nn.Conv2d(n, 3, 1), 3, vertex, keep=False)
            total = head if total is None else self.put(Add(), 3, total, head, keep=False)
        self.dag.set_output(total)
        return self.dag.eval()


STEPS = [
    "convolution", "convolution", "depthwise", "batch_norm", "group_norm", "layer_norm", "activation", "softmax",
    "normalize", "add", "add", "gate", "attend", "join", "cut", "shuffle",
]  # fmt: skip


@st.composite
def graphs(draw):
    builder = Builder(draw)
    for _ in range(draw(st.integers(2, 10))):
        builder.step()
    return builder.finish()


def randomised(dag, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*dag.named_parameters(), *dag.named_buffers()):
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise.abs() + 0.5 if name.endswith("var") else 0.5 * noise)
    return dag


@settings(
    max_examples=NETWORKS or 60, suppress_health_check=list(HealthCheck), derandomize=not NETWORKS,
    database=None, print_blob=True,
)  # fmt: skip
@given(graphs(), st.integers(0, 1000), st.sampled_from([0.3, 0.6, 0.8]))
def test_masked_equals_removed(dag, seed, keep):
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    analysis = analyze(randomised(dag, seed), x)
    plan = Plan.random(analysis, keep, seed)
    pruned = Cut(analysis, plan).removed()
    assert removal_proof(analysis, plan, pruned, dtype=torch.float64).worst < 1e-10
    counts = {orbit.atom.id: len(plan.kept[orbit.key]) for orbit in analysis.orbits}
    assert analysis.parameters_count(counts) == sum(p.numel() for p in pruned.parameters())
    assert analysis.cost(counts) == analyze(pruned, x).cost()


# The oracle --------------------------------------------------------------------------------------------------------

LINEAR_STEPS = ["convolution", "depthwise", "batch_norm", "activation", "add", "gate", "join", "cut", "shuffle"]


@st.composite
def graphs_without_statistics(draw):
    """Graphs in which channels meet in convolutions only."""
    builder = Builder(draw)
    for _ in range(draw(st.integers(2, 8))):
        x, n = builder.pick()
        getattr(builder, draw(st.sampled_from(LINEAR_STEPS)))(x, n)
    return builder.finish()


@settings(max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True)
@given(graphs_without_statistics(), st.integers(0, 1000))
def test_zeroed_weights_of_consumers_are_an_independent_oracle(dag, seed):
    """The dense graph with the weights that read dropped channels set to 0 computes the same."""
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    analysis = analyze(randomised(dag, seed).double(), x)
    plan = Plan.random(analysis, 0.6, seed)
    pruned = Cut(analysis, plan).removed()
    dense = dag.clone()
    masks = {orbit.atom.id: plan.mask(orbit.key) for orbit in analysis.orbits}
    for vertex in dense.inner_vertices:
        if isinstance(vertex.module, nn.Conv2d):
            zero_dropped_inputs(vertex, analysis, masks)
    wanted = dense(x)
    torch.testing.assert_close(pruned(x), wanted, rtol=1e-9, atol=1e-9)


def zero_dropped_inputs(vertex, analysis, masks):
    """Set every weight to 0 that reads a dropped channel, whatever its group."""
    from torch_dag_pruning.axes import mask

    conv = vertex.module
    read = mask(analysis.axes_of(vertex.predecessors[0].name)[0][1], masks)
    per_group = conv.in_channels // conv.groups
    for out in range(conv.out_channels):
        group = out // (conv.out_channels // conv.groups)
        dropped = ~read[group * per_group : (group + 1) * per_group].bool()
        conv.weight.data[out, dropped] = 0.0
