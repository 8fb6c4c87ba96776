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
