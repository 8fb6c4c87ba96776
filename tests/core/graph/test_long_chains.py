"""Every operation on 5,000 vertices: no recursion, and work that grows linearly with the graph."""

import copy
import pickle

import pytest
import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add, Neg
from torch_dag_core.patterns.rewriting import chain, find

LENGTH = 5000


def insert_before_each(dag):
    for vertex in dag.inner_vertices:
        dag.insert_before(vertex, Neg())


def insert_after_each(dag):
    for vertex in dag.inner_vertices:
        dag.insert_after(vertex, Neg())


def insert_between_each(dag):
    for vertex in dag.inner_vertices:
        dag.insert_between(vertex.predecessors[0], vertex, Neg())


def insert_under_one_name(dag):
    for vertex in dag.inner_vertices:
        dag.insert_after(vertex, Neg(), name=dag.unique_name("minus"))


def remove_every_other(dag):
    for vertex in dag.inner_vertices[::2]:
        dag.remove_vertex(vertex)


def replace_module_of_each(dag):
    for vertex in dag.inner_vertices:
        dag.replace_module(vertex, nn.ReLU())


def replace_each_by_a_new_vertex(dag):
    for vertex in dag.inner_vertices:
        new = dag.add_vertex(f"new_{vertex.name}", nn.ReLU(), vertex.predecessors)
        dag.replace_uses(vertex, new)
        dag.remove_unused(vertex)


def skip_every_other(dag):
    for vertex in dag.inner_vertices[::2]:
        dag.replace_uses(vertex, vertex.predecessors[0])


def rewire_each(dag):
    for vertex in dag.inner_vertices[2:]:
        dag.set_predecessor(vertex, 0, vertex.predecessors[0].predecessors[0])


def remove_dead_half(dag):
    order = dag.inner_vertices
    last = len(order) // 2
    dag.set_output(order[last])
    assert dag.remove_dead_vertices() == tuple(vertex.name for vertex in order[last + 1 :])


def wrap_all_but_the_ends(dag):
    dag.wrap_subgraph(dag.inner_vertices[1:-1], name="wrapped")


def wrap_and_flatten(dag):
    wrap_all_but_the_ends(dag)
    assert len(dag.flatten().inner_vertices) == len(dag.inner_vertices[1].module.inner_vertices) + 2


def find_pairs(dag):
    assert len(find(dag, chain(nn.Tanh, nn.Tanh))) == len(dag.inner_vertices) - 1


def deepcopy(dag):
    assert str(copy.deepcopy(dag)) == str(dag)


def pickled(dag):
    assert str(pickle.loads(pickle.dumps(dag))) == str(dag)


def refuse_a_cycle(dag):
    with pytest.raises(Exception, match="has a cycle"):
        dag.set_predecessor(dag.inner_vertices[0], 0, dag.inner_vertices[-1])


OPERATIONS = [
    insert_before_each, insert_after_each, insert_between_each, insert_under_one_name, remove_every_other,
    replace_module_of_each, replace_each_by_a_new_vertex, skip_every_other, rewire_each, remove_dead_half,
    wrap_all_but_the_ends, wrap_and_flatten, find_pairs, deepcopy, pickled, refuse_a_cycle, DagModule.verify, str,
    DagModule.summary,
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_the_operation_works_and_its_cost_is_linear(operation, chain_of, calls_of):
    small, large, whole = chain_of(LENGTH // 32), chain_of(LENGTH // 4), chain_of(LENGTH)
    few = calls_of(lambda: operation(small))
    many = calls_of(lambda: operation(large))
    assert many < 12 * few + 1000  # 8 for linear work, a little more with a logarithm, 64 for quadratic work
    operation(whole)
    whole.verify()


def test_the_forward_of_a_long_chain(chain_of):
    assert torch.equal(chain_of(LENGTH, Neg)(torch.ones(2)), torch.ones(2))


def test_one_vertex_with_thousands_of_users_and_operands(calls_of):
    class Total(Add):
        def forward(self, *values):
            return sum(values)

    def build(width):
        dag = DagModule()
        x = dag.add_input("x")
        leaves = [dag.add_vertex(f"v{i}", Neg(), [x]) for i in range(width)]
        dag.set_output(dag.add_vertex("sum", Total(), leaves))
        return dag

    def edit(dag):
        x = dag.input_vertices[0]
        dag.insert_after(x, Neg())
        dag.remove_dead_vertices()
        dag.wrap_subgraph(dag.get_vertex_by_name("sum").predecessors, name="leaves")
        assert torch.equal(dag(torch.ones(1)), torch.full((1,), float(len(x.dag.outputs[0].predecessors))))
        dag.verify()

    small, large = build(200), build(1600)
    assert calls_of(lambda: edit(large)) < 8.8 * calls_of(lambda: edit(small))
