"""Each thing that cannot be written or read is one SerializationError that says where and what to do."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.codecs import ModuleCodec, OpCodec
from torch_dag_core.dag import DagModule
from torch_dag_core.errors import SerializationError
from torch_dag_core.inputs import Assumption, InputSpec, Parameter, TensorSpec
from torch_dag_core.op import Op
from torch_dag_core.ops.tensors import Constant
from torch_dag_core.registry import OpSpec
from torch_dag_core.serialization import load, save
from torch_dag_core.serialization.limits import MAX_DEPTH, MAX_OPERANDS
from torch_dag_core.values import Size, Slot


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


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.uint16)], ids=["sparse", "uint16"])
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
    ids=str,
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


# Reading -------------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(tmp_path, registry, tiny, raw_file):
    """Write the tiny graph with a change to its document and return the message of the refusal."""

    def run(change, registry=registry):
        path = tmp_path / "file.safetensors"
        save(tiny(), path, registry=registry)
        raw = raw_file(path.read_bytes())
        change(raw)
        path.write_bytes(raw.content())
        with pytest.raises(SerializationError) as caught:
            load(path, registry=registry)
        assert str(path) in "".join(caught.value.__notes__)
        return str(caught.value)

    return run


def test_newer_format_says_upgrade(changed):
    assert "upgrade torch-dag-core" in changed(lambda raw: raw.document.update(format=2, more="of this"))


def test_unknown_op_names_vertex_key_and_distribution(changed):
    def rename(raw):
        raw.document["ops"]["timm.attention"] = {"version": 1, "owner": "torch-dag-timm", "owner_version": "0.3"}
        module = next(m for m in raw.document["modules"] if m.get("op") == "core.batchnorm1d")
        module["op"] = "timm.attention"

    message = changed(rename)
    for part in ("'stem.norm'", "'timm.attention'", "'torch-dag-timm' 0.3"):
        assert part in message


def test_newer_op_says_upgrade(changed):
    assert "upgrade 'torch-dag-core'" in changed(lambda raw: raw.document["ops"]["core.linear"].update(version=2))


def test_cycle_is_named(changed):
    def bend(raw):
        raw.document["graph"]["vertices"][2]["operands"] = [5]

    message = changed(bend)
    assert "graph.vertices[2].operands[0]" in message
    assert "cycle" in message


def test_duplicate_and_bad_names_are_named(changed):
    assert "'stem.fc'" in changed(lambda raw: raw.document["graph"]["vertices"][1].update(name="stem.fc"))
    assert "'forward'" in changed(lambda raw: raw.document["graph"]["vertices"][1].update(name="forward"))
    assert "vertices[1]" in changed(lambda raw: raw.document["graph"]["vertices"][1].update(name="a b"))


def edit_table(edit):
    return lambda raw: edit(raw.document["tensors"], raw.header)


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda table, header: table.pop("stem.norm.bias"), ["'stem.norm.bias'", "'stem.norm'"]),
        (lambda table, header: table.update(other={"dtype": "float32"}), ["'other'"]),
        (lambda table, header: header.update(other=header.pop("stem.fc.bias")), ["'stem.fc.bias'", "missing"]),
        (lambda table, header: table["tied.weight"].pop("alias"), ["'tied.weight'", "missing"]),
        (lambda table, header: table["stem.fc.bias"].update(dtype="int32"), ["'stem.fc.bias'", "'int32'"]),
        (lambda table, header: table["stem.fc.bias"].update(dtype="object"), ["'stem.fc.bias'", "'object'"]),
        (lambda table, header: table["stem.fc.bias"].update(dtype="float16"), ["'stem.fc.bias'", "F16"]),
        (lambda table, header: header["stem.fc.weight"].update(shape=[4, 1]), ["'stem.fc.weight'", "[4, 1]"]),
        (lambda table, header: header["stem.fc.weight"].update(dtype="I32"), ["'stem.fc.weight'", "I32"]),
        (lambda table, header: table["tied.weight"].update(alias="stem.fc.bias"), ["'tied.weight'", "shape"]),
        (lambda table, header: table["tied.weight"].update(alias="tied.weight"), ["'tied.weight'", "not stored"]),
        (lambda table, header: table["mask.mask"].update(persistent=True), ["'mask.mask'", "persistent"]),
        (lambda table, header: table["stem.fc.bias"].update(layout="channels_last"), ["'stem.fc.bias'", "layout"]),
        (
            lambda table, header: table["stem.norm.num_batches_tracked"].update(requires_grad=True),
            ["'stem.norm.num_batches_tracked'", "gradient"],
        ),
    ],
    ids=range(14),
)
def test_tensor_that_does_not_fit_is_named(changed, edit, parts):
    message = changed(edit_table(edit))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("size", [10**12, 10**18, 2**63, 10**400, -1, 2.5, "4", None, [4] * 10_000], ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize(("op", "argument", "vertex"), [
    ("core.linear", "in_features", "'stem.fc"), ("core.batchnorm1d", "num_features", "'stem.norm")
])
def test_absurd_sizes_cost_nothing_and_are_refused(changed, op, argument, vertex, size):
    def grow(raw):
        module = next(m for m in raw.document["modules"] if m.get("op") == op)
        module["config"][argument] = size

    tracemalloc.start()
    try:
        assert vertex in changed(grow)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_endless_constructor_is_stopped(tmp_path, registry, raw_file):
    path = tmp_path / "f"
    save(graph(nn.LSTM(2, 2)), path, registry=registry)
    raw = raw_file(path.read_bytes())
    raw.document["modules"][0]["config"]["num_layers"] = 10**9
    path.write_bytes(raw.content())
    with pytest.raises(SerializationError, match=r"vertex 'layer'.*too many tensors"):
        load(path, registry=registry)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a":1,"a":2}', "NaN", '{"format":1e999}', "1" * 5000])
def test_document_that_is_no_graph_is_refused(tmp_path, registry, tiny, raw_file, raw_content, text):
    path = tmp_path / "f"
    save(tiny(), path, registry=registry)
    path.write_bytes(raw_content(raw_file(path.read_bytes()), text))
    with pytest.raises(SerializationError, match="graph document"):
        load(path, registry=registry)


def test_deeply_nested_constant_is_refused(changed):
    deep = 0
    for _ in range(600):
        deep = [deep]
    nested = json.dumps(deep)

    def bury(raw):
        scaled = next(m for m in raw.document["modules"] if m.get("op") == "test.scaled")
        scaled["config"]["factor"] = json.loads(nested)

    assert "config.factor is not the JSON form of a constant" in changed(bury)


def test_plain_safetensors_file_says_what_it_is(tmp_path, registry):
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(SerializationError, match="weights without a graph"):
        load(tmp_path / "plain.safetensors", registry=registry)


def test_missing_file_is_an_ordinary_error(tmp_path, registry):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.safetensors", registry=registry)


def test_older_op_is_migrated_or_names_its_distribution(tmp_path, registry):
    class Power(Op):
        exponent: float
        scale: float = 1.0

    path = tmp_path / "f"
    old, new, never = (registry.copy() for _ in range(3))
    spec = OpSpec(key="test.power", target=Power, codec=OpCodec(Power))
    old.add(spec, owner="powers")
    never.add(OpSpec(key="test.power", target=Power, codec=OpCodec(Power), version=3), owner="powers")

    def migrate(version, config):
        assert version == 1
        return {**config, "scale": 0.5}

    new.add(OpSpec(key="test.power", target=Power, codec=OpCodec(Power), version=3, migrate=migrate), owner="powers")
    save(graph(Power(2.0)), path, registry=old)
    assert load(path, registry=new).get_vertex_by_name("layer").module.config() == {"exponent": 2.0, "scale": 0.5}
    with pytest.raises(SerializationError, match=r"'test\.power' has version 1 .* install 'powers'"):
        load(path, registry=never)


def test_failing_migration_names_the_vertex(tmp_path, registry):
    path = tmp_path / "f"
    save(graph(nn.Linear(2, 2), name="deep.fc"), path, registry=registry)
    newer = type(registry)()
    spec = OpSpec(
        key="core.linear", target=nn.Linear, codec=ModuleCodec(nn.Linear), version=2, migrate=lambda *_: {"rank": 3}
    )
    newer.add(spec, owner="torch-dag-core")
    with pytest.raises(SerializationError, match=r"'deep\.fc'.*'rank'"):
        load(path, registry=newer)


def test_constant_op_with_a_huge_shape_is_refused(tmp_path, registry, raw_file):
    path = tmp_path / "f"
    dag = DagModule()
    dag.set_output(dag.add_vertex("held", Constant((2,), torch.float32, torch.zeros(2))))
    save(dag, path, registry=registry)
    raw = raw_file(path.read_bytes())
    raw.document["modules"][0]["config"]["shape"] = [10**12]
    path.write_bytes(raw.content())
    with pytest.raises(SerializationError, match=r"'held\.value'.*1000000000000"):
        load(path, registry=registry)
