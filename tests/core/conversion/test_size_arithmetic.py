"""Numbers computed from sizes: right at the example, and at other sizes right or refused."""

from __future__ import annotations

import importlib.util
import itertools
import math
from functools import lru_cache
from math import gcd, isqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_dag_core as td
from torch_dag_core.graph.conditions import OPERATORS
from torch_dag_core.tracing.sizes import Traced, TracedFloat, TracedInt

SMALL, TABLE, FACTORS = {1, 2, 3}, {1: 5, 2: 7}, [1, 2, 3, 4]


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.l = function, nn.Linear(4, 4)

    def forward(self, x):
        return self.function(self, x)


def times(number):
    return lambda m, x: m.l(x) * number(x)


@lru_cache
def cached(n):
    return n % 3 + 1


OF_BATCH = {
    "modulo": times(lambda x: x.shape[0] % 2 + 1),
    "modulo of a constant": times(lambda x: 12 % x.shape[0] + 1),
    "negative modulo": times(lambda x: -x.size(0) % 4 + 1),
    "len": times(lambda x: len(x) % 2 + 1),
    "len of a result": lambda m, x: m.l(x) * (len(m.l(x)) % 3 + 1),
    "__len__": times(lambda x: x.__len__() % 2 + 1),
    "and": times(lambda x: (x.shape[0] & 1) + 1),
    "or": times(lambda x: x.shape[0] | 4),
    "xor": times(lambda x: 1 ^ x.shape[0]),
    "right shift": times(lambda x: x.shape[0] >> 2),
    "left shift": times(lambda x: (1 << x.shape[0] % 3) + (x.shape[0] << 1) % 5),
    "complement": times(lambda x: ~x.shape[0] & 3),
    "divmod": times(lambda x: divmod(x.shape[0], 2)[1] + 1),
    "divmod by a size": times(lambda x: sum(divmod(7, x.shape[0]))),
    "gcd": times(lambda x: math.gcd(x.shape[0], 6)),
    "imported gcd": times(lambda x: gcd(6, x.shape[0])),
    "lcm": times(lambda x: math.lcm(x.shape[0], 4) % 7),
    "isqrt": times(lambda x: math.isqrt(x.shape[0])),
    "imported isqrt": times(lambda x: isqrt(x.shape[0])),
    "sqrt": times(lambda x: int(math.sqrt(x.shape[0]))),
    "factorial": times(lambda x: math.factorial(x.shape[0] % 4)),
    "log": times(lambda x: int(math.log2(x.shape[0]))),
    "root": times(lambda x: int(x.shape[0] ** 0.5)),
    "square": times(lambda x: x.shape[0] ** 2 % 5),
    "power": times(lambda x: pow(2, x.shape[0] % 4)),
    "half": times(lambda x: int(x.shape[0] / 2)),
    "rounded": times(lambda x: round(x.shape[0] / 2)),
    "ceiling": times(lambda x: math.ceil(x.shape[0] / 3)),
    "floor": times(lambda x: math.floor(x.shape[0] / 3)),
    "float": times(lambda x: float(x.shape[0]) % 2 + 1),
    "bit_length": times(lambda x: x.shape[0].bit_length()),
    "bit_count": times(lambda x: x.shape[0].bit_count()),
    "bin": times(lambda x: len(bin(x.shape[0]))),
    "ratio": times(lambda x: x.shape[0].as_integer_ratio()[0] % 3),
    "bytes": times(lambda x: x.shape[0].to_bytes(2, "big")[1] % 3),
    "get": times(lambda x: TABLE.get(x.shape[0], 3)),
    "in a table": times(lambda x: 2 if x.shape[0] in TABLE else 3),
    "in a set": times(lambda x: 2 if x.shape[0] in SMALL else 3),
    "in a tuple": times(lambda x: 2 if x.shape[0] in (1, 2, 3) else 3),
    "cached": times(lambda x: cached(x.shape[0])),
    "hash": times(lambda x: hash(x.shape[0]) % 2 + 1),
    "str": times(lambda x: int(str(x.shape[0])[0])),
    "format": times(lambda x: len(f"{x.shape[0]:b}")),
    "repr": times(lambda x: len(repr(x.shape[0]))),
    "percent": times(lambda x: len("%d" % x.shape[0])),  # noqa: UP031
    "nbytes": times(lambda x: x.nbytes // 16 % 2 + 1),
    "element_size": times(lambda x: x.element_size() * x.numel() // 16 % 3 + 1),
    "numel of a shape": times(lambda x: x.size().numel() // 4 % 2 + 1),
    "numel of a slice": times(lambda x: x.shape[:1].numel() % 2 + 1),
    "stride": lambda m, x: m.l(x) * (x.t().contiguous().stride(0) % 2 + 1),
    "stride of a view": lambda m, x: m.l(x) * (x.t().contiguous().t().stride()[1] % 2 + 1),
    "range": times(lambda x: sum(range(x.shape[0])) % 4 + 1),
    "length of a range": times(lambda x: len(range(0, x.shape[0], 2))),
    "index": times(lambda x: FACTORS[x.shape[0] % 4]),
    "slice of a list": times(lambda x: len(FACTORS[: x.shape[0]])),
    "repetition": times(lambda x: len([0] * x.shape[0]) % 2 + 1),
    "torch.Size": times(lambda x: torch.Size([x.shape[0], 3]).numel() % 2 + 1),
    "minimum": times(lambda x: min(x.shape[0], 4)),
    "maximum": times(lambda x: max(3, x.shape[0])),
    "sorted": times(lambda x: sorted([3, x.shape[0]])[1]),
    "truth": times(lambda x: 2 if x.shape[0] % 3 else 5),
    "float compared": times(lambda x: 2 if x.shape[0] < 4.5 else 5),
    "numpy": times(lambda x: int(np.sqrt(x.shape[0]))),
    "loop": lambda m, x: sum((m.l(x) for _ in range(x.shape[0] % 3)), x),
    "repeat": lambda m, x: m.l(x).repeat(1, x.shape[0] % 2 + 1),
    "pad": lambda m, x: F.pad(m.l(x), (0, (3 - x.shape[0] % 3) % 3)),
    "expand to one": lambda m, x: m.l(x)[:1].expand(x.shape[0] % 3, -1),
    "alpha of one": lambda m, x: torch.add(m.l(x), x, alpha=x.shape[0] % 3),
    "start of nothing": lambda m, x: m.l(x)[..., (x.shape[0] + 2) % 3 :],
    "number": lambda m, x: (m.l(x), x.shape[0] % 2),
    "float number": lambda m, x: (m.l(x), float(x.shape[0] % 2)),
    "tensor": lambda m, x: m.l(x) + torch.tensor(x.shape[0] % 2),
    "full": lambda m, x: m.l(x) + torch.full((4,), x.shape[0] % 3, dtype=torch.float32),
}
FREE = {
    "view": lambda m, x: m.l(x).view(x.shape[0] * 2, 2),
    "merged by int": lambda m, x: m.l(x).view(int(x.shape[0] / (4 / 2) * 2), 4),
    "windows": lambda m, x: m.l(x).repeat(6, 1).view(int(x.shape[0] * 6 / (2 * 3)), 6, 4),
    "root of what is fixed": lambda m, x: m.l(x).view(len(x), int(x.shape[1] ** 0.5), -1),
    "doubled": lambda m, x: m.l(x).repeat(2, 1).view(-1, 2 * len(x), 4),
}


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def compare(model, example, others):
    """Return how many of the other inputs the graph takes; on each, and on the example, it equals the model."""
    dag = td.build_from_unstructured_module(model, example)
    same(dag(example), model(example))
    taken = 0
    for x in others:
        try:
            found = dag(x)
        except td.InputError:
            continue
        same(found, model(x))
        taken += 1
    return taken


@pytest.mark.parametrize("batch", [2, 3, 9])
@pytest.mark.parametrize("name", OF_BATCH)
def test_a_number_computed_from_the_batch(name, batch):
    others = [torch.randn(n, 4) for n in (1, 2, 3, 4, 5, 6, 8, 13, 16)]
    compare(Applied(OF_BATCH[name]), torch.randn(batch, 4), others)


@pytest.mark.parametrize("name", FREE)
def test_what_follows_the_batch_leaves_it_free(name):
    others = [torch.randn(n, 4) for n in (1, 2, 3, 4, 5, 8, 13, 16)]
    assert compare(Applied(FREE[name]), torch.randn(2, 4), others) == len(others)


def test_a_number_that_a_graph_rests_on_is_an_assumption_which_a_file_keeps(tmp_path):
    model = Applied(OF_BATCH["gcd"])
    dag = td.build_from_unstructured_module(model, torch.randn(2, 4))
    dag.save(tmp_path / "graph.safetensors")
    loaded = td.load(tmp_path / "graph.safetensors")
    assert [str(one) for one in loaded.input_spec.assumptions] == ["(gcd(input 0.shape[0], 6) == 2)"]
    x = torch.randn(4, 4)
    same(loaded(x), model(x))
    with pytest.raises(td.InputError, match=r"gcd\(input 0.shape\[0\], 6\) == 2"):
        loaded(torch.randn(6, 4))


def multiple(of):
    def pad(m, x):
        height, width = x.shape[2:]
        return F.pad(x, (0, (of - width % of) % of, 0, (of - height % of) % of))

    return pad


def windows(m, x):
    x = multiple(3)(m, x)
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // 3, 3, width // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, channels)
    batch = int(x.shape[0] / (height * width / 3 / 3))
    x = x.view(batch, height // 3, width // 3, 3, 3, channels).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, channels, height, width)


OF_IMAGES = {
    "multiple of 3": multiple(3),
    "multiple of 4": multiple(4),
    "windows": windows,
    "even": lambda m, x: x * (x.shape[2] % 2 + 1),
    "both sides": lambda m, x: x * math.gcd(x.shape[2], x.shape[3]),
    "pixels": lambda m, x: x * (x.shape[2:].numel() % 3 + 1),
    "text": lambda m, x: x * len(str(x.shape[3])),
    "half": lambda m, x: F.interpolate(x, size=(x.shape[2] // 2, math.ceil(x.shape[3] / 2))),
    "scale": lambda m, x: F.interpolate(x, size=[int(n * 0.5) for n in x.shape[2:]]),
    "loop": lambda m, x: sum((x for _ in range(x.shape[2] // 8)), x),
}


@pytest.mark.parametrize("size", [(28, 28), (30, 41), (64, 48)])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_number_computed_from_the_image_size(name, size):
    height, width = size
    shapes = [(height + a, width + b) for a, b in ((1, 0), (0, 1), (2, 5), (16, 32), (32, 32), (64, 128), (7, 3))]
    compare(Applied(OF_IMAGES[name]), torch.randn(2, 2, *size), [torch.randn(n, 2, *s) for s in shapes for n in (1, 2)])


@pytest.mark.parametrize("batch", [2, 5])
def test_padding_to_windows_is_not_taken_for_the_batch(batch):
    images = [torch.randn(n, 2, 28, 28) for n in (1, 2, 3, 4, 7)]
    assert compare(Applied(windows), torch.randn(batch, 2, 28, 28), images) == len(images)


@pytest.mark.parametrize("length", [4, 6])
def test_padding_of_the_first_of_three_dimensions(length):
    model = Applied(lambda m, x: F.pad(x, (0, 0, 0, 0, 0, -x.shape[0] % 4)))
    others = [torch.randn(n, 3, 4) for n in (1, 2, 3, 4, 5, 6, 8, 10)]
    assert compare(model, torch.randn(length, 3, 4), others) >= 2


class StaticPadding(nn.Module):
    """Downsamples with a padding that was chosen for one image size, and upsamples to what it saw on the way."""

    def __init__(self, size, depth, kernel):
        super().__init__()
        self.pads, self.down = [], nn.ModuleList()
        for _ in range(depth):
            total = max((math.ceil(size / 2) - 1) * 2 + kernel - size, 0)
            self.pads.append((total // 2, total - total // 2) * 2)
            self.down.append(nn.Conv2d(2, 2, kernel, 2))
            size = math.ceil(size / 2)

    def forward(self, x):
        skips = []
        for pad, conv in zip(self.pads, self.down, strict=True):
            skips.append(x)
            x = conv(F.pad(x, pad))
        for skip in reversed(skips):
            x = F.interpolate(x, size=skip.shape[2:]) + skip
        return x


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [64, 72])
def test_sizes_of_skips_after_static_padding(size, kernel):
    others = [torch.randn(1, 2, a, b) for a, b in ((96, 96), (96, 64), (80, 112), (128, 64), (66, 67), (100, 90))]
    assert compare(StaticPadding(size, 4, kernel), torch.randn(2, 2, size, size), others) == len(others)


class InTraining(nn.Module):
    def forward(self, x):
        return x * (x.shape[0] % 2 + 1 if self.training else 1)


@pytest.mark.parametrize("batch", [2, 3])
def test_a_number_computed_in_training_alone(batch):
    model = InTraining()
    dag = td.build_from_unstructured_module(model, torch.randn(batch, 4))
    for training in (False, True):
        for size in (batch, 1, 2, 3, 4):
            x = torch.randn(size, 4)
            try:
                found = dag.train(training)(x)
            except td.InputError:
                assert size != batch
                continue
            same(found, model.train(training)(x))


TYPED = """
def function(m, x):
    half = int(x.shape[0] / 2)
    return x[:half] * (2 if type(half) is int else 3)
"""


def test_a_namespace_that_tests_for_int_itself_keeps_it():
    others = [torch.randn(n, 4) for n in (1, 2, 3, 4, 6)]
    namespace = {}
    exec(TYPED, namespace)
    compare(Applied(namespace["function"]), torch.randn(4, 4), others)


def test_builtins_are_put_back():
    before = {"len": len, "range": range, "gcd": math.gcd, "Size": torch.Size}
    td.build_from_unstructured_module(Applied(FREE["windows"]), torch.randn(2, 4))
    assert {"len": len, "range": range, "gcd": math.gcd, "Size": torch.Size} == before
    assert "int" not in globals()


SAFE = {
    "__class__", "__new__", "__init__", "__init_subclass__", "__subclasshook__", "__getattribute__", "__setattr__",
    "__delattr__", "__dir__", "__doc__", "__sizeof__", "__reduce__", "__reduce_ex__", "__getstate__", "imag",
    "denominator", "from_bytes", "fromhex", "__getformat__", "__setformat__", "__ceil__",
}  # fmt: skip


@pytest.mark.parametrize("kind", [TracedInt, TracedFloat])
def test_every_method_of_a_number_is_followed_or_recorded(kind):
    plain = kind.__mro__[-2]
    inherited = {name for name in dir(plain) if getattr(kind, name, None) is getattr(plain, name)}
    assert inherited <= SAFE
    assert issubclass(kind, Traced)


def test_operators_have_a_value_and_a_text():
    for operator in OPERATORS.values():
        assert operator.text.count("{}") == operator.arity
        operator.function(*[6] * operator.arity)


def _probe():
    path = Path(__file__).parents[3] / "benchmarks" / "size_probe.py"
    spec = importlib.util.spec_from_file_location("size_probe", path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["size_probe"] = module
    spec.loader.exec_module(module)
    return module


HIDDEN = {
    "half of a size": lambda x: 0.5 * x.shape[2] > 3,
    "a high threshold": lambda x: 0.5 * x.shape[2] > 300,
    "length of a slice": lambda x: len(FACTORS[: x.shape[2]]) % 2 == 0,
    "length of a repetition": lambda x: [0] * x.shape[2] > [0] * 5,
    "an iterator": lambda x: sum(itertools.islice(itertools.repeat(1), x.shape[2])) < 1_000,
}
"""Decisions for which C code reads the value of an int, where no subclass of int sees it."""


@pytest.mark.parametrize("name", HIDDEN)
def test_a_decision_that_python_hides_fixes_the_size(name):
    model = Applied(lambda m, x: x * 2 if HIDDEN[name](x) else x + 1)
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))
    assert dag.input_spec.tensors[0].shape[2] == 8
    assert "in a way that Python does not show" in " ".join(dag.input_spec.notes)
    same(dag(torch.ones(5, 3, 8, 8)), model(torch.ones(5, 3, 8, 8)))


def test_a_constant_that_python_hides_fixes_the_size():
    model = Applied(lambda m, x: x * len(FACTORS[: x.shape[2]]))
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))
    assert dag.input_spec.tensors[0].shape[2] == 8


def test_hidden_arithmetic_that_shapes_explain_leaves_a_size_free():
    model = Applied(lambda m, x: F.interpolate(x, size=(int(0.5 * x.shape[2]), int(0.5 * x.shape[3]))))
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))
    for size in (8, 24):
        same(dag(torch.ones(1, 3, size, 8)), model(torch.ones(1, 3, size, 8)))


def test_random_expressions_end_in_equal_or_refused():
    probe = _probe()
    for one in probe.probes(200, seed=7):
        wrong = [outcome for outcome in probe.outcomes(one) if outcome.startswith("wrong")]
        assert not wrong, (one, wrong)


def another_output(m, x):
    doubled = x.view(x.shape[0] * 2, -1) + x.shape[0] // x.shape[0]
    return doubled if m.training else x + 1


BY_MODE = {
    "a call that only training needs": another_output,
    "a constant tensor": lambda m, x: x + torch.full((4,), 2.0 if m.training else 1.0),
    "a constant tensor of a free size": lambda m, x: x + torch.full((len(x), 4), 2.0 if m.training else 1.0),
    "a shape": lambda m, x: x.reshape(len(x), 2, -1) if m.training else x.reshape(len(x) * 2, -1, 1),
    "a shape further on": lambda m, x: m.l(x[:, None].expand(-1, 2 + m.training, -1)).flatten(1) * 2,
    "a free size": lambda m, x: torch.cat([x.new_zeros(len(x) * (2 if m.training else 3), 4), x]),
}


@pytest.mark.parametrize("name", BY_MODE)
def test_what_differs_between_modes_leaves_the_batch_free(name):
    model = Applied(BY_MODE[name])
    dag = td.build_from_unstructured_module(model, torch.randn(2, 4))
    for training in (False, True):
        for size in (1, 2, 3, 13):
            x = torch.randn(size, 4)
            same(dag.train(training)(x), model.train(training)(x))


def test_an_argument_of_another_structure_is_refused_by_name():
    def split(m, x):
        return x.split(2 if x.shape[0] == 13 else [2] * (x.shape[0] // 2) + [1] * (x.shape[0] % 2))[0]

    compare(Applied(split), torch.randn(5, 4), [torch.randn(n, 4) for n in (1, 2, 3, 5, 13)])


@lru_cache(16)
def table_of(shape, width):
    return shape[0] * (shape[1] * shape[2]), shape[1] * shape[2] // width


def test_cached_functions_follow_sizes():
    model = Applied(lambda m, x: x.reshape(table_of(x.shape, 4)[0], -1))
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))
    assert dag.input_spec.tensors[0].shape == (None, 3, None, None)
    for shape in ((5, 3, 8, 8), (1, 3, 24, 8)):
        same(dag(torch.ones(shape)), model(torch.ones(shape)))


def test_cached_functions_can_be_asked_for_their_cache():
    model = Applied(lambda m, x: x.reshape(table_of(x.shape, 4)[0], -1) * table_of.cache_info().maxsize)
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))
    same(dag(torch.ones(5, 3, 8, 8)), torch.full((120, 8), 16.0))


def test_cached_functions_keep_their_cache_for_everything_else():
    model = Applied(lambda m, x: x * table_of((1, 2, 3), 4)[0])
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3))
    same(dag(torch.ones(5, 3)), torch.ones(5, 3) * 6)
    assert table_of.cache_info().currsize > 0


def test_an_index_of_a_list_that_nothing_sees_fixes_the_size():
    model = Applied(lambda m, x: x * FACTORS[min(x.shape[2] % 3, 2)])
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))
    same(dag(torch.ones(2, 3, 8, 8)), model(torch.ones(2, 3, 8, 8)))
    for size in (6, 7, 9):
        try:
            found = dag(torch.ones(2, 3, size, 8))
        except td.InputError:
            continue
        same(found, model(torch.ones(2, 3, size, 8)))
