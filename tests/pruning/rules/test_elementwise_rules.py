"""Ops on single elements, broadcasting, gates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.ops import arithmetic
from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import OpSpec
from torch_dag_pruning.axes.relation import AxisRule

KINDS = (arithmetic.Binary, arithmetic.Unary)
UNARY = {
    "neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "expm1": torch.expm1, "log": lambda x: torch.log(x.abs() + 1),
    "log1p": lambda x: torch.log1p(x.abs()), "sqrt": lambda x: torch.sqrt(x.abs() + 1),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1), "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "square": torch.square, "sin": torch.sin, "cos": torch.cos, "erf": torch.erf, "floor": torch.floor,
    "ceil": torch.ceil, "round": torch.round, "sign": torch.sign, "clamp": lambda x: x.clamp(-0.5, 0.5),
    "cast": lambda x: x.to(torch.float64), "detach": lambda x: x.detach(),
    "isnan": lambda x: x.isnan().logical_not() * x, "invert": lambda x: (x > 0).logical_not() * x,
}  # fmt: skip
BINARY = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y.abs() + 1), "floor_div": lambda x, y: torch.floor_divide(x, y.abs() + 1),
    "remainder": lambda x, y: torch.remainder(x, y.abs() + 1), "pow": lambda x, y: (x.abs() + 1) ** y,
    "maximum": torch.maximum, "minimum": torch.minimum, "eq": lambda x, y: (x == y).to(x.dtype) + x,
    "ne": lambda x, y: (x != y) * x, "lt": lambda x, y: (x < y) * x, "le": lambda x, y: (x <= y) * x,
    "gt": lambda x, y: (x > y) * x, "ge": lambda x, y: (x >= y) * x, "and": lambda x, y: ((x > -1) & (y < 1)) * x,
    "or": lambda x, y: ((x > 0) | (y > 0)) * x, "xor": lambda x, y: ((x > 0) ^ (y > 0)) * x,
    "atan2": torch.atan2, "where": lambda x, y: torch.where(x > y, x, y),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, 0.25),
}  # fmt: skip
MODULES = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.SiLU(), nn.Mish(),
    nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Softplus(), nn.Softsign(),
    nn.LogSigmoid(), nn.Tanhshrink(), nn.Hardshrink(0.1), nn.Softshrink(0.1), nn.Threshold(0.1, 0.2), nn.Dropout(),
    nn.Dropout1d(), nn.AlphaDropout(), nn.RReLU(), nn.FeatureAlphaDropout(), nn.Identity(),
]  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_unary(check, fn, name):
    net = fn(lambda m, x: m.b(UNARY[name](m.a(x)).to(x.dtype)), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), ops=[name], orbits=[8], seeds=[1])


@pytest.mark.parametrize("name", BINARY)
def test_binary(check, fn, name):
    net = fn(
        lambda m, x: m.c(BINARY[name](m.a(x), m.b(x)).to(x.dtype)),
        a=nn.Linear(5, 8), b=nn.Linear(5, 8), c=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), ops=[name], orbits=[8], seeds=[1])


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_module(check, fn, module):
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=nn.Linear(5, 8), f=module, b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8], seeds=[1])


@pytest.mark.parametrize("module", [nn.Dropout2d(), nn.Dropout3d()], ids=["2d", "3d"])
def test_dropout_of_channels(check, fn, module):
    rank = 2 if isinstance(module, nn.Dropout2d) else 3
    conv = (nn.Conv2d, nn.Conv3d)[rank - 2]
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=conv(3, 8, 1), f=module, b=conv(8, 3, 1))
    check(net, torch.randn(2, 3, *[4] * rank), orbits=[8], seeds=[1])


def test_statistics_that_are_taken_of_a_value_are_cut_with_it(check, fn):
    def forward(m, x):
        x = m.a(x)
        m.norm(x)
        return m.b(x)

    net = fn(forward, a=nn.Linear(5, 8), norm=nn.BatchNorm1d(8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), ops=["keep", "batch_norm1d"], orbits=[8])


def test_every_elementwise_op_is_tried():
    tried = {*UNARY, *BINARY, *(type(module).__name__.lower() for module in MODULES)}
    others = {"cast_like", "drop_path", "stochastic_depth", "functional_dropout", "training_switch",
              "dropout2d", "dropout3d", "prelu", "glu", "keep"}  # fmt: skip
    rules = gather("torch_dag_pruning.rules.elementwise", AxisRule)
    keys = {key.removeprefix("core.") for rule in rules for key in rule.keys}
    untried = {key for key in keys - others if key not in tried and key.replace("_", "") not in tried}
    assert not untried
    declared = [spec for spec in gather(arithmetic.__name__, OpSpec) if issubclass(spec.target, KINDS)]
    assert 0 < len(declared) <= len(UNARY) + len(BINARY)


def test_operands_that_broadcast(check, fn):
    def forward(m, x):
        x = m.a(x)
        return m.b(F.relu(x * m.scale + m.shift) * m.gate(x.mean((2, 3)))[:, :, None, None])

    net = fn(
        forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 4, 1), gate=nn.Linear(8, 8),
        scale=nn.Parameter(torch.randn(8, 1, 1)), shift=nn.Parameter(torch.randn(1)),
    )  # fmt: skip
    check(net, torch.randn(2, 3, 6, 6), ops=["mul", "add", "free_parameter"], orbits=[8])


def test_sizes_that_happen_to_be_equal(check, fn):
    """Eight tokens of width eight in a batch of eight: only positions tell them apart."""
    net = fn(
        lambda m, x: m.b(F.relu(m.a(x) + m.position).transpose(1, 2).reshape(len(x), 8, 8).transpose(1, 2)),
        a=nn.Linear(8, 8), b=nn.Linear(8, 8), position=nn.Parameter(torch.randn(1, 8, 8)),
    )  # fmt: skip
    check(net, torch.randn(8, 8, 8), orbits=[8])


@pytest.mark.parametrize(("slopes", "shape"), [(1, (2, 5)), (8, (2, 5))])
def test_prelu(check, fn, slopes, shape):
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=nn.Linear(5, 8), f=nn.PReLU(slopes), b=nn.Linear(8, 3))
    check(net, torch.randn(*shape), ops=["prelu"], orbits=[8])


def test_prelu_slopes_belong_to_dimension_one(check, fn):
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=nn.Linear(5, 8), f=nn.PReLU(7), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])


def test_the_halves_of_a_gated_unit_are_tied(check, fn):
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=nn.Linear(5, 12), f=nn.GLU(), b=nn.Linear(6, 3))
    check(net, torch.randn(2, 5), ops=["glu"], orbits=[6])


def test_an_operand_read_for_its_type_is_not_related(check, fn):
    net = fn(
        lambda m, x: m.c(m.a(x).type_as(m.b(x)).sum(-1, keepdim=True) + m.b(x)),
        a=nn.Linear(5, 6), b=nn.Linear(5, 8), c=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), orbits=[6, 8])


def test_drop_path_does_not_freeze_the_stream(check, fn):
    def drop(x):
        return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.5)

    def forward(m, x):
        x = m.a(x)
        y = m.b(F.relu(x))
        return m.c(x + (drop(y) if m.training else y))

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), ops=["training_switch", "random"], orbits=[8])
