"""Cost rules against what torch does: `FlopCounterMode` counts contractions, a mode of ours elementwise results."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from torch_dag_core.analysis.call_cost import call_cost
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops import contraction
from torch_dag_core.ops.attention import Attention
from torch_dag_core.ops.sampling import GridSample, Interpolate
from torch_dag_core.ops.torch_call import ALLOWED, COSTS, TorchCall
from torch_dag_core.ops.vocabulary import specs

SPECS = {spec.target: spec for spec in specs()}
ELEMENTWISE = {"add", "sub", "mul", "sigmoid", "tanh", "relu"}


class Elementwise(TorchDispatchMode):
    """Counts the elements that elementwise calls compute."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.rstrip("_") in ELEMENTWISE:
            self.count += result.numel()
        return result


def shapes(value):
    if isinstance(value, torch.Tensor):
        return [tuple(value.shape)]
    return [shape for item in value for shape in shapes(item)]


def cost(module, *inputs):
    """Return what the rule of a module's op says of one call."""
    parameters = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    return call_cost(SPECS[type(module)], module, shapes(inputs), shapes(module(*inputs)), parameters)


def contractions(function, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*inputs)
    return counter.get_total_flops()


def x(*shape):
    return torch.rand(shape)


CONTRACTIONS = {
    "linear": (nn.Linear(8, 5, bias=False), x(2, 3, 8)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, bias=False), x(2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), x(2, 4, 6, 5)),
    "conv3d": (nn.Conv3d(4, 6, (1, 2, 3), bias=False), x(2, 4, 4, 5, 6)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), x(2, 4, 5, 6)),
    "matmul": (contraction.Matmul(), x(2, 3, 4, 8), x(8, 5)),
    "linear_function": (contraction.LinearFunction(), x(2, 8), x(5, 8)),
    "convolution": (contraction.Convolution((1, 1), (0, 0), (1, 1), 2), x(2, 4, 6, 5), x(6, 2, 3, 3)),
    "transposed_convolution": (
        contraction.TransposedConvolution((2, 2), (0, 0), (0, 0), 1, (1, 1)), x(2, 4, 5, 5), x(4, 3, 2, 2),
    ),
    "einsum": (contraction.Einsum("bij,jk->bik"), x(2, 3, 4), x(4, 5)),
    "einsum of three": (contraction.Einsum("bi,oij,bj->bo"), x(3, 4), x(6, 4, 5), x(3, 5)),
    "einsum with dots": (contraction.Einsum("b...d,ed->b...e"), x(2, 3, 5, 4), x(6, 4)),
    "inner": (TorchCall("torch.inner", (Slot(0), Slot(1))), x(3, 4), x(5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRACTIONS)
def test_a_contraction_costs_what_torch_counts(case):
    module, *inputs = CONTRACTIONS[case]
    assert cost(module, *inputs).flops == contractions(module, *inputs)


ADDED = {
    "addmm": (TorchCall("torch.addmm", (Slot(0), Slot(1), Slot(2))), x(3, 5), x(3, 4), x(4, 5)),
    "baddbmm": (TorchCall("torch.baddbmm", (Slot(0), Slot(1), Slot(2))), x(2, 3, 5), x(2, 3, 4), x(2, 4, 5)),
    "linear": (nn.Linear(8, 5), x(2, 3, 8)),
    "conv2d": (nn.Conv2d(4, 6, 3), x(2, 4, 6, 5)),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3), x(2, 4, 9)),
}


@pytest.mark.parametrize("case", ADDED)
def test_what_is_added_to_a_contraction_costs_one_for_each_element(case):
    module, *inputs = ADDED[case]
    assert cost(module, *inputs).flops == contractions(module, *inputs) + module(*inputs).numel()


def test_a_product_of_a_batch_that_is_summed():
    module = TorchCall("torch.addbmm", (Slot(0), Slot(1), Slot(2)))
    given = x(3, 5), x(2, 3, 4), x(2, 4, 5)
    assert cost(module, *given).flops == contractions(torch.bmm, *given[1:]) + 3 * 5


def test_attention_is_two_products_and_a_softmax():
    given = x(2, 3, 5, 4), x(2, 3, 7, 4), x(2, 3, 7, 6)
    module = contraction.ScaledDotProductAttention()
    products = contractions(lambda q, k, v: (q @ k.mT) @ v, *given)
    assert cost(module, *given).flops == products + 5 * (2 * 3 * 5 * 7)


@pytest.mark.parametrize("fused", [True, False])
def test_self_attention_has_projections_too(fused):
    module = Attention(8, 2, 3, 10, scale=0.5, fused=fused)
    spelled_out = Attention(8, 2, 3, 10, scale=0.5, fused=False)
    given = x(2, 5, 8)
    added = 2 * 5 * (3 * 2 * 3 + 10)
    assert cost(module, given).flops == contractions(spelled_out, given) + added + 5 * (2 * 2 * 5 * 5)


def test_an_outer_product_sums_nothing():
    assert cost(contraction.Einsum("bi,bj->bij"), x(2, 3), x(2, 4)).flops == 2 * 3 * 4


def test_bilinear_contracts_with_one_operand_after_the_other():
    module = nn.Bilinear(4, 5, 6)
    given = x(3, 4), x(3, 5)
    einsum = contraction.Einsum("bi,oij,bj->bo")
    assert cost(module, *given).flops == contractions(einsum, given[0], module.weight, given[1]) + 3 * 6


RECURRENT = {
    "lstm": (nn.LSTM(8, 6), x(5, 3, 8)),
    "lstm, layers and directions": (nn.LSTM(8, 6, 3, bidirectional=True, batch_first=True), x(3, 5, 8)),
    "lstm with projections": (nn.LSTM(8, 6, 2, proj_size=4), x(5, 3, 8)),
    "lstm without biases": (nn.LSTM(8, 6, 2, bias=False), x(5, 3, 8)),
    "lstm of one sequence": (nn.LSTM(8, 6), x(5, 8)),
    "gru": (nn.GRU(8, 6, 2, bidirectional=True), x(5, 3, 8)),
    "gru without biases": (nn.GRU(8, 6, bias=False), x(5, 3, 8)),
    "rnn": (nn.RNN(8, 6, 2), x(5, 3, 8)),
    "rnn with relu": (nn.RNN(8, 6, nonlinearity="relu"), x(5, 3, 8)),
    "lstm cell": (nn.LSTMCell(8, 6), x(3, 8)),
    "gru cell": (nn.GRUCell(8, 6, bias=False), x(3, 8)),
    "rnn cell": (nn.RNNCell(8, 6), x(8)),
}


@pytest.mark.parametrize("case", RECURRENT)
def test_a_recurrent_layer_costs_what_its_steps_do(case):
    module, given = (part.to("meta") for part in RECURRENT[case])  # where torch has no fused kernel
    with Elementwise() as elementwise, torch.no_grad():
        products = contractions(module, given)
    steps = math.prod(given.shape[:-1])
    biases = steps * sum(p.numel() for name, p in module.named_parameters() if name.startswith("bias"))
    assert cost(module, given).flops == products + biases + elementwise.count


def test_resizing_costs_a_multiply_accumulate_for_each_element_read():
    image = x(2, 3, 4, 4)
    results = 2 * 3 * 8 * 8
    costs = {mode: cost(Interpolate(scale_factor=2.0, mode=mode), image).flops for mode in ("nearest", "bilinear")}
    assert costs == {"nearest": 0, "bilinear": 2 * 4 * results}
    assert not cost(Interpolate(scale_factor=0.5, mode="bilinear", antialias=True), image).is_known
    assert cost(GridSample(align_corners=False), image, x(2, 5, 5, 2)).flops == 2 * 4 * (2 * 3 * 5 * 5)


def test_every_op_has_a_rule():
    assert [spec.key for spec in specs() if spec.flops is None] == []


def test_a_call_of_a_function_without_a_rule_is_unknown():
    known = cost(TorchCall("torch.tan", (Slot(0),)), x(2, 3))
    unknown = cost(TorchCall("fft.rfft", (Slot(0),)), x(2, 3))
    assert (known.flops, known.is_known) == (6, True)
    assert (unknown.flops, unknown.is_known) == (4, False)


def test_rules_are_for_functions_that_may_be_called():
    assert COSTS.keys() <= {f"{space}.{name}" for space, names in ALLOWED.items() for name in names}


class Whole:
    """A whole number that is no int, as those of NumPy."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


@pytest.mark.parametrize(("size", "positions"), [(2, 8), ((1, 2, 3), 6), (Whole(3), 27), ((1, Whole(2), Whole(2)), 4)])
def test_windows_may_be_whole_numbers_of_any_kind(size, positions):
    found = call_cost(SPECS[nn.AvgPool3d], nn.AvgPool3d(size), [(2, 3, 4, 4, 4)], [(2, 3, 2, 2, 2)], {})
    assert (type(found.flops), found.flops) == (int, 2 * 3 * 8 * positions)
