import pytest
import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add, Mul
from torch_dag_core.ops.tensors import FreeParameter
from torch_dag_core.patterns.dominance import dominators
from torch_dag_core.patterns.regions import residual_blocks


class Builder:
    """Adds vertices by one-line calls; every layer is a Linear so that blocks hold parameters."""

    def __init__(self):
        self.dag = DagModule()
        self.x = self.dag.add_input("x")

    def layer(self, name, source, module=None):
        return self.dag.add_vertex(name, module or nn.Linear(2, 2), [source])

    def sum(self, name, *operands):
        return self.dag.add_vertex(name, Add(), operands)

    def blocks(self, output):
        self.dag.set_output(output)
        return [[vertex.name for vertex in block] for block in residual_blocks(self.dag)]


@pytest.fixture
def build():
    return Builder()


def test_identity_and_projection_shortcuts(build):
    stem = build.layer("stem", build.x)
    first = build.sum("sum1", build.layer("b", build.layer("a", stem)), stem)
    relu = build.layer("relu", first, nn.ReLU())
    main = build.layer("d", build.layer("c", relu))
    second = build.sum("sum2", build.layer("down", relu), main)
    assert build.blocks(build.layer("head", second)) == [["a", "b", "sum1"], ["c", "d", "down", "sum2"]]


def test_pre_norm_transformer_layers_are_two_blocks_each(build):
    value, expected = build.x, []
    for index in range(3):
        attention = build.layer(f"attn{index}", build.layer(f"norm1_{index}", value))
        value = build.sum(f"sum1_{index}", value, attention)
        mlp = build.layer(f"mlp{index}", build.layer(f"norm2_{index}", value))
        value = build.sum(f"sum2_{index}", value, mlp)
        expected.append([f"norm1_{index}", f"attn{index}", f"sum1_{index}"])
        expected.append([f"norm2_{index}", f"mlp{index}", f"sum2_{index}"])
    assert build.blocks(value) == expected


def test_branches_inside_a_branch_belong_to_it(build):
    a = build.layer("a", build.x)
    gate = build.layer("gate", a, nn.Sigmoid())
    gated = build.dag.add_vertex("gated", Mul(), [a, gate])
    assert build.blocks(build.sum("sum", gated, build.x)) == [["a", "gate", "gated", "sum"]]


def test_a_sum_of_sums_over_one_fork_is_one_block(build):
    inner = build.sum("inner", build.layer("three", build.x), build.layer("one", build.x))
    assert build.blocks(build.sum("outer", inner, build.x)) == [["three", "one", "inner", "outer"]]


def test_only_the_innermost_of_nested_blocks(build):
    down = build.layer("down", build.x)
    inner = build.sum("inner", build.layer("a", down), down)
    outer = build.sum("outer", build.layer("up", inner), build.x)
    assert build.blocks(outer) == [["a", "inner"]]


def test_what_is_read_from_outside_makes_no_block(build):
    a = build.layer("a", build.x)
    total = build.sum("sum", build.layer("b", a), build.x)
    assert build.blocks(build.dag.add_vertex("later", Mul(), [total, a])) == []
    build.dag.set_outputs((build.dag.output_structure, type(build.dag.output_structure)(1)), [total, a])
    assert residual_blocks(build.dag) == []


def test_constants_are_no_branches_but_belong_to_one(build):
    position = build.dag.add_vertex("position", FreeParameter((2,), torch.float32, value=torch.zeros(2)))
    embedded = build.sum("embedded", build.x, position)
    bias = build.dag.add_vertex("bias", FreeParameter((2,), torch.float32, value=torch.zeros(2)))
    shared = build.dag.add_vertex("shared", FreeParameter((2,), torch.float32, value=torch.zeros(2)))
    biased = build.sum("biased", build.layer("a", embedded), bias)
    scaled = build.dag.add_vertex("scaled", Mul(), [biased, shared])
    total = build.sum("sum", embedded, scaled)
    again = build.dag.add_vertex("again", Mul(), [total, shared])
    (block,) = build.blocks(again)
    assert set(block) == {"bias", "a", "biased", "scaled", "sum"}
    assert block[-1] == "sum"


def test_sums_without_parameters_around_or_without_a_fork_are_no_blocks(build):
    y = build.dag.add_input("y")
    activation = build.sum("activation", build.x, build.layer("tanh", build.x, nn.Tanh()))
    outer = build.sum("outer", build.layer("a", activation), activation)
    assert build.blocks(build.sum("joined", build.layer("b", outer), y)) == [["a", "outer"]]


def test_doubling_is_no_block(build):
    a = build.layer("a", build.x)
    assert build.blocks(build.sum("twice", a, a)) == []


def test_other_sums_can_be_named(build):
    product = build.dag.add_vertex("product", Mul(), [build.layer("a", build.x), build.x])
    assert build.blocks(product) == []
    assert [[v.name for v in block] for block in residual_blocks(build.dag, sums=[Mul])] == [["a", "product"]]


def test_every_block_wraps_into_one_input_and_one_output(build):
    test_pre_norm_transformer_layers_are_two_blocks_each(build)
    sample = torch.randn(5, 2)
    before = build.dag(sample)
    for index, block in enumerate(residual_blocks(build.dag)):
        wrapped = build.dag.wrap_subgraph(block, name=f"block{index}")
        assert len(wrapped.predecessors) == 1
        assert len(wrapped.module.outputs) == 1
    assert torch.equal(build.dag(sample), before)
    assert [vertex.name for vertex in build.dag.inner_vertices] == [f"block{index}" for index in range(6)]


def test_dominators_agree_with_removal(build):
    """A vertex dominates the sum if and only if no path is left once it is taken out."""
    values = [build.x]
    generator = torch.Generator().manual_seed(0)
    for index in range(60):
        left, right = (values[-int(torch.randint(1, min(len(values), 6) + 1, (), generator=generator))] for _ in "lr")
        values.append(build.sum(f"v{index}", left, right))
        if index % 7 == 0:
            values.append(build.layer(f"cut{index}", values[-1]))
            values = values[-1:]
    places = dominators(build.dag)
    for vertex in build.dag.inner_vertices:
        strict = {other for other in build.dag.vertices if other is not vertex and not reachable(vertex, without=other)}
        chain, place = set(), places[vertex].parent
        while place.item is not None:
            chain.add(place.item)
            place = place.parent
        assert chain == strict


def reachable(vertex, *, without):
    """Tell whether an input reaches ``vertex`` around ``without``."""
    stack, seen = [vertex], {without}
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if not current.predecessors:
            return True
        stack.extend(current.predecessors)
    return False


def test_the_work_grows_almost_linearly(calls_of):
    def work(count):
        build = Builder()
        value = build.x
        for index in range(count):
            value = build.sum(f"sum{index}", build.layer(f"a{index}", value), value)
        far = build.sum("far", value, build.x)
        build.dag.set_output(far)
        assert len(residual_blocks(build.dag)) == count
        return calls_of(lambda: residual_blocks(build.dag))

    assert work(2400) < 4.6 * work(600)
