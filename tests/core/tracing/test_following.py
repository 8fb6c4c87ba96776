"""Builtins that are replaced for the length of a trace: by whom they are seen, and that they are put back."""

from __future__ import annotations

import builtins
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import torch_dag_core as td
from torch_dag_core.tracing.following import following
from torch_dag_core.tracing.namespaces import NO_SCOPES, Scopes

ORIGINALS = {"len": len, "range": range, "bin": bin, "gcd": math.gcd, "Size": torch.Size}


def current():
    return {
        "len": builtins.len, "range": builtins.range, "bin": builtins.bin, "gcd": math.gcd, "Size": torch.Size,
    }  # fmt: skip


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_other_threads_see_ordinary_results():
    def look(x):
        return type(len(x)), type(range(3)), type(math.gcd(4, 6)), type(torch.Size([1]))

    def forward(x):
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(look, x).result()
        assert found == (int, ORIGINALS["range"], int, ORIGINALS["Size"])
        return x + len(x)

    dag = td.build_from_unstructured_module(Applied(forward), torch.randn(2, 4))
    assert dag.input_spec.tensors[0].shape == (2, 4)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_builtins_are_put_back_after_an_interrupt(error):
    def forward(x):
        raise error

    with pytest.raises(error):
        td.build_from_unstructured_module(Applied(forward), torch.randn(2, 4))
    assert current() == ORIGINALS


def test_an_interrupt_while_names_are_replaced_leaves_none_replaced():
    class Interrupting(dict):
        def update(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), following(len, Scopes((Interrupting(),), ())):
        pass
    assert current() == ORIGINALS


def test_what_others_replaced_in_the_meantime_stays(monkeypatch):
    def own(*args):
        return 1

    monkeypatch.setattr(math, "gcd", math.gcd)
    with following(len, NO_SCOPES):
        math.gcd = own
    assert math.gcd is own
    assert {**current(), "gcd": ORIGINALS["gcd"]} == ORIGINALS


class ByText(nn.Module):
    """Choose a layer by the text of a size."""

    def __init__(self, choose):
        super().__init__()
        self.first, self.second, self.choose = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), choose

    def forward(self, x):
        return (self.first if self.choose(x) else self.second)(x)


KEYS = {"8": True}
TEXTS = {
    "a key": lambda x: {"8": True, "16": False}[str(x.shape[-1])],
    "a key with a default": lambda x: KEYS.get(str(x.shape[-1]), False),
    "a comparison": lambda x: str(x.shape[-1]) == "8",
    "a formatted string": lambda x: f"{x.shape[2]}x{x.shape[3]}" == "8x8",
    "a format": lambda x: "{}x{}".format(*x.shape[2:]) == "8x8",
    "a percent sign": lambda x: "%s" % x.shape[2] in KEYS,  # noqa: UP031
    "a membership": lambda x: f"{x.shape[2]}" in ("8", "4"),
    "the text of a shape": lambda x: repr(tuple(x.shape[2:])) == "(8, 8)",
}


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_decides_pins_the_size(name, size):
    model, x = ByText(TEXTS[name]).eval(), torch.randn(2, 3, size, size)
    dag = td.build_from_unstructured_module(model, x)
    assert torch.equal(dag(x), model(x))
    with pytest.raises(td.InputError):
        dag(torch.randn(2, 3, 24 - size, 24 - size))


class Asserting(nn.Module):
    def forward(self, x):
        sizes = [x.shape[2]]
        torch._assert(x.shape[2] % 2 == 0, f"the height is {x.shape[2]}, the first of {sizes[0]} and {len(sizes)}")
        if x.shape[3] % 2:
            raise ValueError(f"the width is {x.shape[3]}")
        return x * 2


def test_the_text_of_a_message_leaves_the_size_free(faithful):
    dag = faithful(Asserting(), lambda batch: torch.randn(batch, 3, 8, 8))
    assert dag.input_spec.tensors[0].shape == (None, 3, None, None)
