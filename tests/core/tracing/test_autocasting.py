"""Blocks that switch autocast off inside of a model, and the same graph under the autocast of its caller."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError
from torch_dag_core.serialization import load


def rows(batch=2):
    return torch.randn(batch, 6)


def off(function):
    def run(x):
        with torch.autocast("cpu", enabled=False):
            return function(x.float())

    return run


@torch.autocast("cpu", enabled=False)
def decorated(x):
    return x.float() @ x.float().T


def asked_first(x):
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return x.float() @ x.float().T
    return x.float() @ x.float().T


def in_single(x):
    return x.half().float().half().softmax(-1).float()


GUARDED = {
    "a product": off(lambda x: x @ x.T),
    "a layer": off(nn.Linear(6, 3)),
    "a function of a layer": off(lambda x: nn.functional.linear(x, torch.ones(3, 6))),
    "a softmax of half numbers": off(in_single),
    "a function with a decorator": decorated,
    "a block for autocast alone": asked_first,
    "a block in a block": off(off(lambda x: x @ x.T)),
}


@pytest.mark.parametrize("name", GUARDED)
def test_what_autocast_would_change_needs_it_to_be_off(name, model_of, tmp_path):
    model, x = model_of(GUARDED[name]), rows()
    dag = build_from_unstructured_module(model, x)
    dag.save(tmp_path / "dag.safetensors")
    for graph in (dag, load(tmp_path / "dag.safetensors")):
        assert torch.equal(graph(x), model(x))
        with torch.autocast("cpu"), pytest.raises(InputError, match=r"holds only where not torch\.is_autocast_enabled"):
            graph(x)


FREE = {
    "arithmetic": off(lambda x: (x * 2 + 1).sin()),
    "layout": off(lambda x: torch.cat([x, x.flip(1)], 1).reshape(-1, 2, 6).transpose(1, 2)),
    "a softmax of single numbers": off(lambda x: x.softmax(-1).exp()),
    "numbers that are no floats": off(lambda x: x.argmax(1) + 1),
    "an empty block": lambda x: off(lambda y: y)(x) * 0 + x,
}


@pytest.mark.parametrize("name", FREE)
def test_what_autocast_leaves_alone_is_the_same_under_it(name, model_of):
    model, x = model_of(FREE[name]), rows(3)
    dag = build_from_unstructured_module(model, rows())
    assert dag.input_spec.assumptions == ()
    with torch.autocast("cpu"):
        expected, found = model(x), dag(x)
    assert expected.dtype == found.dtype
    assert torch.equal(expected, found)


def test_a_block_on_again_inside_is_cast_and_leaves_no_trace(model_of):
    entering = torch.autocast.__enter__

    def run(x):
        with torch.autocast("cpu", enabled=False), torch.autocast("cpu", enabled=True):
            return x @ x.T

    model, x = model_of(run), rows(3)
    dag = build_from_unstructured_module(model, rows())
    assert dag(x).dtype == torch.bfloat16
    assert torch.equal(dag(x), model(x))
    assert torch.autocast.__enter__ is entering


def test_the_type_of_autocast_is_a_condition(model_of):
    model, x = model_of(lambda x: x.to(torch.get_autocast_dtype("cpu")).float()), rows()
    dag = build_from_unstructured_module(model, x)
    assert torch.equal(dag(x), model(x))
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(InputError, match="get_autocast_dtype"):
        dag(x)
