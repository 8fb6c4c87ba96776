"""Each thing that cannot be written is one SerializationError that says where and what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import Assumption, InputSpec, Parameter, TensorSpec
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, Slot
from torch_dag_core.plugins.registry import OpSpec
from torch_dag_core.serialization import load, save
from torch_dag_core.serialization.limits import MAX_DEPTH, MAX_OPERANDS


def graph(module, *, name="layer"):
    dag = DagModule()
    dag.set_output(dag.add_vertex(name, module, [dag.add_input("x")]))
    return dag


@pytest.fixture
def refused(tmp_path, registry):
    """Save, expect a refusal and no file, and return the message."""

    def run(dag):
        with pytest.raises(SerializationError) as caught:
            save(dag, tmp_path / "file.safetensors", registry=registry)
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    return run


class Unknown(nn.Module):
    def forward(self, x):
        return x


class Own(Op):
    factor: float

    def forward(self, x):
        return x * self.factor


def test_unregistered_class_is_named_with_the_two_ways_out(refused):
    message = refused(graph(Unknown(), name="stem.odd"))
    for part in ("'stem.odd'", "Unknown", "OpSpec with a codec", "atomic_modules"):
        assert part in message


def test_class_registered_without_codec_says_so(tmp_path, registry):
    registry = registry.copy()
    registry.add(OpSpec(key="mine.unknown", target=Unknown), owner="mine")
    with pytest.raises(SerializationError, match=r"'layer'.*'mine\.unknown' without a codec"):
        save(graph(Unknown()), tmp_path / "f", registry=registry)


def test_module_changed_after_construction_is_refused(refused):
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.zeros(3, 4))
    assert "'layer.weight'" in refused(graph(layer))
    layer = nn.Linear(4, 4)
    layer.register_buffer("extra", torch.zeros(2))
    assert "'layer.extra'" in refused(graph(layer))


def test_attribute_outside_the_constants_is_refused(refused):
    layer = nn.Dropout(0.5)
    layer.p = torch.tensor(0.5)
    assert "constant 'p' of vertex 'layer'" in refused(graph(layer))


def test_subclass_of_a_graph_is_refused(refused):
    class Special(DagModule):
        pass

    assert "Special" in refused(Special())
    assert "Special" in refused(graph(Special()))


def test_tensor_without_values_is_refused(refused):
    assert "meta device" in refused(graph(nn.Linear(2, 2, device="meta")))


@pytest.mark.parametrize(
    "tensor", [torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.uint16)], ids=["sparse", "odd"]
)
def test_tensor_of_another_kind_is_refused(refused, tensor):
    layer = nn.BatchNorm1d(2)
    layer.running_mean = tensor
    assert "layer" in refused(graph(layer))


def test_tensor_outside_of_any_vertex_is_refused(refused):
    dag = graph(nn.ReLU())
    dag.register_buffer("loose", torch.zeros(2))
    assert "'loose'" in refused(dag)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (InputSpec((Parameter("x y", Slot(0)),)), "'x y'"),
        (InputSpec((Parameter("lambda", Slot(0)),)), "'lambda'"),
        (InputSpec((Parameter("a", Slot(0)), Parameter("a", 1))), "'a'"),
        (InputSpec((Parameter("a", Slot(1)),)), "slots"),
        (InputSpec((Parameter("a", {2.5: Slot(0)}),)), "2.5"),
        (InputSpec((Parameter("a", [Slot(0), object()]),)), "object"),
        (InputSpec((Parameter("a", Slot(0)),), (TensorSpec(torch.float32, (1,)),) * 2), "2 tensors"),
        (InputSpec((Parameter("a", Slot(0)),), assumptions=(Assumption(("import", 1, 2)),)), "import"),
        (InputSpec((Parameter("a", Slot(0)),), assumptions=(Assumption(("eq", "exit()", 2)),)), "exit"),
        (InputSpec((Parameter("a", Slot(0)),), assumptions=(Assumption(("eq", ("input", 3, 0), 2)),)), "input"),
    ],
)  # fmt: skip
def test_input_spec_that_no_forward_can_be_made_of_is_refused(refused, spec, part):
    dag = graph(nn.ReLU())
    dag.input_spec = spec
    assert part in refused(dag)


def test_provenance_is_constants_only(refused):
    dag = graph(nn.ReLU())
    dag.provenance = {"model": nn.ReLU()}
    assert "provenance" in refused(dag)


@pytest.mark.parametrize("constant", [Slot(1), Size(((2, 0),)), (1, slice(None, Size(((1, 0),)), None))])
def test_constant_that_names_a_missing_operand_is_refused(refused, vocabulary, constant):
    assert "refers to operand" in refused(graph(vocabulary["Scaled"](constant)))


def test_absurd_graphs_are_refused(refused, vocabulary):
    deep = graph(nn.ReLU())
    for _ in range(MAX_DEPTH + 1):
        deep = graph(deep)
    assert "deep" in refused(deep)
    assert "levels deep" in refused(graph(nn.ReLU(), name=".".join("a" * (MAX_DEPTH + 1))))
    assert "characters" in refused(graph(nn.ReLU(), name="a" * 2000))
    assert "__metadata__" in refused(graph(nn.ReLU(), name="__metadata__"))
    assert "Unicode" in refused(graph(nn.ReLU(), name="\ud800"))
    wide = DagModule()
    x = wide.add_input("x")
    wide.set_output(wide.add_vertex("sum", vocabulary["Plus"](), [x] * (MAX_OPERANDS + 1)))
    assert "operands" in refused(wide)
    doubling = graph(nn.ReLU())
    for _ in range(40):
        both = DagModule()
        first = both.add_vertex("first", doubling, [both.add_input("x")])
        both.set_output(both.add_vertex("second", doubling, [first]))
        doubling = both
    assert "limits" in refused(doubling)


def test_own_class_is_saved_through_its_config_and_needs_the_class_to_load(tmp_path, registry):
    path = tmp_path / "f"
    save(graph(Own(2.5), name="mine"), path, registry=registry)
    assert registry.find("user.Own") is None
    with pytest.raises(SerializationError, match=r"vertex 'mine'.*'user\.Own'.*atomic_modules=\(Own,\)"):
        load(path, registry=registry)
    loaded = load(path, registry=registry, atomic_modules=(Own,))
    assert type(loaded.get_vertex_by_name("mine").module) is Own
    assert loaded.get_vertex_by_name("mine").module.factor == 2.5
    assert registry.find("user.Own") is None


def test_two_own_classes_of_one_name_are_refused(refused):
    def another():
        class Own(Op):
            factor: int

        return Own

    dag = graph(Own(1.0))
    dag.add_vertex("other", another()(2), dag.input_vertices)
    assert "'other'" in refused(dag)


def test_class_without_config_cannot_be_passed_to_load(tmp_path, registry):
    with pytest.raises(SerializationError, match=r"Unknown has no method config\(\)"):
        load(tmp_path / "f", registry=registry, atomic_modules=(Unknown,))
