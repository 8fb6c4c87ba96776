"""Graphs built by hand, and a count of the Python calls that an operation makes."""

import sys

import pytest
import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add


@pytest.fixture
def chain_of():
    def build(length, module=nn.Tanh, prefix="v"):
        dag = DagModule()
        vertex = dag.add_input("x")
        for index in range(length):
            vertex = dag.add_vertex(f"{prefix}{index}", module(), [vertex])
        dag.set_output(vertex)
        return dag

    return build


@pytest.fixture
def diamond():
    """x -> stem.a -> (left, right) -> sum -> tail"""
    dag = DagModule()
    x = dag.add_input("x")
    a = dag.add_vertex("stem.a", nn.Linear(4, 4), [x])
    left = dag.add_vertex("block.left", nn.Linear(4, 4), [a])
    right = dag.add_vertex("block.right", nn.Tanh(), [a])
    total = dag.add_vertex("block.sum", Add(), [left, right])
    tail = dag.add_vertex("tail", nn.Linear(4, 4), [total])
    dag.set_output(tail)
    return dag


@pytest.fixture
def outer_of():
    """Return a function that puts a graph into another as its one vertex ``nested``."""

    def build(nested, *, inputs=1):
        dag = DagModule()
        vertices = [dag.add_input(f"x{i}") for i in range(inputs)]
        vertex = dag.add_vertex("nested", nested, vertices)
        dag.set_output(vertex)
        return dag, vertex

    return build


@pytest.fixture
def batch():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls_of():
    """Count Python calls: a measure of work that no other load on the machine changes."""

    def count(action):
        calls = 0

        def on_event(frame, event, arg):
            nonlocal calls
            calls += event == "call"

        before = sys.getprofile()
        sys.setprofile(on_event)
        try:
            action()
        finally:
            sys.setprofile(before)
        return calls

    return count
