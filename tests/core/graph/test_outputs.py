"""A graph returns vertices, in whatever containers they are given."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

import torch_dag_core as td


class Pair(NamedTuple):
    first: object
    second: object


@pytest.fixture
def dag():
    return td.build_from_unstructured_module(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(2, 3))


def outputs_of(dag, x):
    linear = dag.get_vertex_by_name("0").module
    return linear(x), torch.relu(linear(x))


@pytest.mark.parametrize(
    ("given", "flat"),
    [
        (lambda a, b: (a, b), list),
        (lambda a, b: [b, a], lambda found: found[::-1]),
        (lambda a, b: {"a": a, "b": b, "n": 3}, lambda found: [found["a"], found["b"]]),
        (Pair, lambda found: [found.first, found.second]),
        (lambda a, b: {"all": (a, [b])}, lambda found: [found["all"][0], found["all"][1][0]]),
    ],
)
def test_outputs_are_vertices_in_containers(dag, tmp_path, given, flat):
    x = torch.randn(2, 3)
    expected = outputs_of(dag, x)
    dag.set_outputs(given(dag.get_vertex_by_name("0"), dag.get_vertex_by_name("1")))
    dag.verify()
    dag.save(tmp_path / "net.safetensors")
    for each in (dag, td.load(tmp_path / "net.safetensors")):
        assert all(torch.equal(*pair) for pair in zip(flat(each(x)), expected, strict=True))


def test_one_vertex_is_an_output(dag):
    x = torch.randn(2, 3)
    dag.set_outputs(dag.get_vertex_by_name("0"))
    assert torch.equal(dag(x), outputs_of(dag, x)[0])


def test_other_outputs_are_refused_and_change_nothing(dag):
    before = str(dag)
    with pytest.raises(td.GraphError, match=r"outputs are vertices, in containers or alone: .*Linear"):
        dag.set_outputs((dag.get_vertex_by_name("0"), nn.Linear(1, 1)))
    with pytest.raises(td.GraphError, match="holds no vertex; name the vertices"):
        dag.set_outputs((1, 2))
    with pytest.raises(td.GraphError):
        dag.set_outputs([td.DagModule().add_input("x")])
    assert str(dag) == before
