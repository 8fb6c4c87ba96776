"""Work grows with the length of a model, not with its square, and nothing recurses over it."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import torch_dag_core as td


def chain(length):
    return nn.Sequential(*(nn.ReLU() if i % 2 else nn.Linear(2, 2) for i in range(length)))


def calls(work):
    """Count the Python calls that a piece of work makes: its cost, without a clock."""
    counter = [0]

    def count(frame, event, argument):
        counter[0] += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counter[0]


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    td.build_from_unstructured_module(chain(4), torch.randn(2, 2))
    folder = tmp_path_factory.mktemp("chains")
    found = {}
    for length in (200, 400):
        model, x = chain(length), torch.randn(2, 2)
        dag = td.build_from_unstructured_module(model, x)
        dag.save(folder / f"{length}.safetensors")
        found[length] = (model, x, dag, folder / f"{length}.safetensors")
    return found


STEPS = {
    "convert": lambda model, x, dag, path: td.build_from_unstructured_module(model, x),
    "verify": lambda model, x, dag, path: dag.verify(),
    "run": lambda model, x, dag, path: dag(x),
    "flops": lambda model, x, dag, path: td.flops(dag),
    "interpret": lambda model, x, dag, path: list(td.interpret(dag, x)),
    "clone": lambda model, x, dag, path: dag.clone(),
    "save": lambda model, x, dag, path: dag.save(path),
    "load": lambda model, x, dag, path: td.load(path),
    "print": lambda model, x, dag, path: str(dag),
}


@pytest.mark.parametrize("step", STEPS)
def test_twice_the_length_is_twice_the_work(chains, step):
    short, long = (calls(lambda: STEPS[step](*chains[length])) for length in (200, 400))  # noqa: B023
    assert long <= 2.2 * short


@pytest.mark.heavy
def test_five_thousand_vertices_go_all_the_way(tmp_path):
    model, x = chain(5000).eval(), torch.randn(3, 2)
    dag = td.build_from_unstructured_module(model, torch.randn(2, 2))
    assert len(dag.inner_vertices) == 5000
    dag.verify()
    dag.save(tmp_path / "chain.safetensors")
    again = td.load(tmp_path / "chain.safetensors")
    assert torch.equal(again(x), model(x))
    assert torch.equal(dag.clone()(x), model(x))
