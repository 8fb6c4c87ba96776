"""Graphs of single layers and of small nets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.analysis.cost_table import flops as count_flops
from torch_dag_core.graph.dag import DagModule


@pytest.fixture
def chain():
    """Return a graph of modules one after the other, called a, b, c, ..."""

    def build(*modules):
        dag = DagModule()
        vertex = dag.add_input("x")
        for index, module in enumerate(modules):
            vertex = dag.add_vertex(chr(ord("a") + index), module, [vertex])
        dag.set_output(vertex)
        return dag.eval()

    return build


@pytest.fixture
def attention():
    """Three linear layers on one input, and one after them."""
    from torch_dag_core.ops.arithmetic import Add

    torch.manual_seed(0)
    dag = DagModule()
    x = dag.add_input("x")
    q, k, v = (
        dag.add_vertex(name, nn.Linear(64, width, bias=bias), [x])
        for name, width, bias in (("q", 64, True), ("k", 64, False), ("v", 64, True))
    )
    total = dag.add_vertex("sum", Add(), [dag.add_vertex("sum_qk", Add(), [q, k]), v])
    dag.set_output(dag.add_vertex("proj", nn.Linear(64, 64), [total]))
    return dag.eval()


@pytest.fixture
def flops():
    """Count the FLOPs of one sample of a graph."""
    return lambda dag, shape: count_flops(dag, torch.empty(1, *shape, device="meta")).flops
