import pytest
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add, Mul, Neg, Sub
from torch_dag_core.patterns.rewriting import Pattern, anything, chain, find


@pytest.fixture
def convolutions():
    """conv -> bn -> relu -> conv -> bn -> sum(bn, relu), and the first relu's value is read twice"""
    dag = DagModule()
    x = dag.add_input("x")
    conv1 = dag.add_vertex("conv1", nn.Conv2d(3, 3, 1), [x])
    bn1 = dag.add_vertex("bn1", nn.BatchNorm2d(3), [conv1])
    relu = dag.add_vertex("relu", nn.ReLU(), [bn1])
    conv2 = dag.add_vertex("conv2", nn.Conv2d(3, 3, 1, groups=3), [relu])
    bn2 = dag.add_vertex("bn2", nn.BatchNorm2d(3), [conv2])
    dag.set_output(dag.add_vertex("sum", Add(), [bn2, relu]))
    return dag


def roots(matches):
    return [match.root.name for match in matches]


def test_a_class_matches_exactly_in_topological_order(convolutions):
    class MyConv(nn.Conv2d):
        pass

    convolutions.insert_after(convolutions.outputs[0], MyConv(3, 3, 1))
    assert roots(find(convolutions, Pattern(nn.Conv2d))) == ["conv1", "conv2"]


def test_several_classes_and_a_condition(convolutions):
    pattern = Pattern((nn.Conv2d, nn.ReLU), where=lambda vertex: getattr(vertex.module, "groups", 0) != 1)
    assert roots(find(convolutions, pattern)) == ["relu", "conv2"]


def test_anything_matches_inputs_too_and_captures(convolutions):
    (first, _) = find(convolutions, Pattern(nn.Conv2d, anything("source")))
    assert first["source"] is convolutions.input_vertices[0]
    assert [vertex.name for vertex in first.vertices] == ["conv1"]


def test_a_chain_lists_its_vertices_in_order(convolutions):
    (match,) = find(convolutions, chain(nn.Conv2d, bn=nn.BatchNorm2d, act=nn.ReLU))
    assert [vertex.name for vertex in match.vertices] == ["conv1", "bn1", "relu"]
    assert {name: vertex.name for name, vertex in match.captures.items()} == {"bn": "bn1", "act": "relu"}


def test_a_chain_has_single_uses_inside(convolutions):
    assert roots(find(convolutions, chain(nn.ReLU, nn.Conv2d))) == []
    assert roots(find(convolutions, Pattern(nn.Conv2d, Pattern(nn.ReLU)))) == ["conv2"]
    assert roots(find(convolutions, chain(nn.BatchNorm2d, nn.ReLU))) == ["relu"]
    convolutions.set_outputs(convolutions.output_structure, [convolutions.get_vertex_by_name("bn1")])
    assert roots(find(convolutions, chain(nn.BatchNorm2d, nn.ReLU))) == []


def test_two_uses_by_one_vertex_are_two():
    dag = DagModule()
    minus = dag.add_vertex("minus", Neg(), [dag.add_input("x")])
    dag.set_output(dag.add_vertex("sum", Add(), [minus, minus]))
    assert find(dag, Pattern(Neg, single_use=True)) == []


def test_operands_must_all_be_described(convolutions):
    assert find(convolutions, Pattern(Add, anything())) == []
    assert roots(find(convolutions, Pattern(Add))) == ["sum"]


def test_commutative_operands_come_in_any_order(convolutions):
    branch, shortcut = Pattern(nn.BatchNorm2d, name="branch"), Pattern(nn.ReLU, name="shortcut")
    for operands in ((branch, shortcut), (shortcut, branch)):
        (match,) = find(convolutions, Pattern(Add, *operands, commutative=True))
        assert (match["branch"].name, match["shortcut"].name) == ("bn2", "relu")
    assert find(convolutions, Pattern(Add, shortcut, branch)) == []


def test_a_repeated_capture_is_the_same_vertex(convolutions):
    main = chain(nn.Conv2d, nn.BatchNorm2d)
    branch = Pattern(nn.BatchNorm2d, Pattern(nn.Conv2d, anything("fork")))
    residual = Pattern(Add, anything("fork"), branch, commutative=True)
    (match,) = find(convolutions, residual)
    assert match["fork"].name == "relu"
    assert [vertex.name for vertex in match.vertices] == ["conv2", "bn2", "sum"]
    convolutions.set_predecessor(convolutions.get_vertex_by_name("sum"), 1, convolutions.input_vertices[0])
    assert find(convolutions, residual) == []
    assert roots(find(convolutions, main)) == ["bn1", "bn2"]


def test_a_failed_arrangement_leaves_no_capture_behind():
    dag = DagModule()
    x, y = dag.add_input("x"), dag.add_input("y")
    left = dag.add_vertex("left", Sub(), [x, y])
    right = dag.add_vertex("right", Mul(), [y, x])
    dag.set_output(dag.add_vertex("sum", Add(), [left, right]))
    pattern = Pattern(
        Add,
        Pattern((Sub, Mul), anything("a"), anything("b")),
        Pattern((Mul, Sub), anything("b"), anything("a"), where=lambda vertex: vertex.name == "left"),
        commutative=True,
    )
    (match,) = find(dag, pattern)
    assert (match["a"].name, match["b"].name) == ("y", "x")
    assert dict(match.captures) == {"a": x if match["a"] is x else y, "b": x}


def test_backtracking_enters_nested_commutative_operands():
    dag = DagModule()
    x, y, z = (dag.add_input(name) for name in "xyz")
    inner = dag.add_vertex("inner", Add(), [x, dag.add_vertex("minus", Neg(), [y])])
    dag.set_output(dag.add_vertex("outer", Mul(), [z, inner]))
    minus = Pattern(Neg, anything("negated"))
    pattern = Pattern(
        Mul, Pattern(Add, minus, anything("kept"), commutative=True), anything("factor"), commutative=True
    )
    (match,) = find(dag, pattern)
    assert {name: vertex.name for name, vertex in match.captures.items()} == {
        "negated": "y", "kept": "x", "factor": "z",
    }  # fmt: skip


def test_disjoint_matches_share_no_vertex(chain_of):
    dag = chain_of(5)
    pair = chain(nn.Tanh, nn.Tanh)
    assert roots(find(dag, pair)) == ["v1", "v2", "v3", "v4"]
    assert roots(find(dag, pair, disjoint=True)) == ["v1", "v3"]


def test_every_disjoint_match_can_be_wrapped(chain_of, batch):
    dag = chain_of(9)
    before = dag(batch)
    for index, match in enumerate(find(dag, chain(nn.Tanh, nn.Tanh), disjoint=True)):
        dag.wrap_subgraph(match.vertices, name=f"pair{index}")
    assert [vertex.name for vertex in dag.inner_vertices] == ["pair0", "pair1", "pair2", "pair3", "v8"]
    assert dag(batch).equal(before)


def test_an_empty_chain_is_an_error():
    with pytest.raises(ValueError, match="at least one module class"):
        chain()


def test_patterns_print():
    assert repr(Pattern((nn.ReLU, nn.GELU), anything("x"), commutative=True)) == (
        "Pattern(GELU | ReLU, Pattern(None, name='x'), commutative=True)"
    )


def test_a_pattern_may_be_as_deep_as_the_graph(chain_of):
    dag = chain_of(5000)
    match = chain(*[nn.Tanh] * 5000).match(dag.outputs[0])
    assert match.vertices == dag.inner_vertices
