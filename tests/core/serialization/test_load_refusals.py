"""Each thing that makes a file unreadable is one SerializationError that says where and what to do."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.op import Op
from torch_dag_core.plugins.codecs import ModuleCodec, OpCodec
from torch_dag_core.plugins.registry import OpSpec
from torch_dag_core.serialization import load, save


def graph(module, *, name="layer"):
    dag = DagModule()
    dag.set_output(dag.add_vertex(name, module, [dag.add_input("x")]))
    return dag


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


SIZES = [10**12, 10**18, 2**63, 10**400, -1, 2.5, "4", None, [4] * 10_000]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: repr(size)[:20])
@pytest.mark.parametrize(
    ("op", "argument", "vertex"),
    [("core.linear", "in_features", "'stem.fc"), ("core.batchnorm1d", "num_features", "'stem.norm")],
)
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
    dag.set_output(dag.add_vertex("held", Constant((2,), torch.float32, value=torch.zeros(2))))
    save(dag, path, registry=registry)
    raw = raw_file(path.read_bytes())
    raw.document["modules"][0]["config"]["shape"] = [10**12]
    path.write_bytes(raw.content())
    with pytest.raises(SerializationError, match=r"'held'.*1000000000000"):
        load(path, registry=registry)
