"""Graphs in several files: shards and an index."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import torch_dag_core as td
from torch_dag_core import SerializationError
from torch_dag_core.serialization import shards as shards_module
from torch_dag_core.serialization.shards import byte_count

LIMIT = 300


def network(seed=0, layers=4):
    torch.manual_seed(seed)
    tied = nn.Linear(6, 6)
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(layers)], nn.BatchNorm1d(6), tied, nn.ReLU(), tied).eval()
    return td.build_from_unstructured_module(model, torch.randn(2, 6))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def index_of(folder):
    return json.loads((folder / "net.safetensors.index.json").read_text())


@pytest.fixture
def saved(tmp_path):
    dag = network()
    dag.save(tmp_path / "net.safetensors", max_shard_size=LIMIT)
    return dag, tmp_path


def same(one, other):
    x = torch.randn(3, 6)
    states = one.state_dict(), other.state_dict()
    return torch.equal(one(x), other(x)) and all(
        torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True)
    )


@pytest.mark.parametrize("name", ["net.safetensors", "net.safetensors.index.json"])
def test_a_graph_in_shards_loads_by_its_path_and_by_its_index(saved, name):
    dag, folder = saved
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert same(td.load(folder / name), dag)


def test_a_folder_is_loaded_by_the_usual_name(tmp_path):
    dag = network()
    for size in (LIMIT, "1GB"):
        dag.save(tmp_path / "model.safetensors", max_shard_size=size)
        assert same(td.load(tmp_path), dag)


def test_shards_and_index_are_those_of_other_tools(saved):
    _, folder = saved
    index = index_of(folder)
    stored = {}
    for shard in set(index["weight_map"].values()):
        tensors = load_file(folder / shard)
        assert tensors.keys() == {name for name, listed in index["weight_map"].items() if listed == shard}
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= LIMIT
        with safe_open(folder / shard, framework="pt") as handle:
            assert handle.metadata()["format"] == "pt"
        stored |= tensors
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())


def test_what_fits_into_one_file_is_one_file(tmp_path):
    network().save(tmp_path / "net.safetensors")
    plain = files(tmp_path)
    network().save(tmp_path / "net.safetensors", max_shard_size="5GB")
    assert files(tmp_path) == plain


def test_the_same_graph_gives_the_same_files(saved, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    network().save(other / "net.safetensors", max_shard_size=LIMIT)
    assert files(other) == files(saved[1])


def test_nothing_of_an_earlier_save_is_left(saved):
    _, folder = saved
    (folder / "net-other.safetensors").write_bytes(b"somebody else's")
    before = set(files(folder))
    later = network(seed=1)
    later.save(folder / "net.safetensors", max_shard_size=2 * LIMIT)
    assert same(td.load(folder / "net.safetensors"), later)
    kept = {"net.safetensors.index.json", "net-other.safetensors"}
    assert set(files(folder)) & before == kept
    later.save(folder / "net.safetensors")
    assert set(files(folder)) == {"net.safetensors", "net-other.safetensors"}
    later.save(folder / "net.safetensors", max_shard_size=LIMIT)
    assert not (folder / "net.safetensors").exists()
    assert same(td.load(folder / "net.safetensors"), later)


@pytest.mark.parametrize("failing", ["save_file", "write_text"])
def test_a_save_that_fails_leaves_the_old_model(saved, monkeypatch, failing):
    dag, folder = saved
    real, calls = getattr(shards_module, failing), []

    def fail(*arguments):
        calls.append(arguments)
        if failing == "write_text" or len(calls) == 2:
            raise OSError("the disk is full")
        real(*arguments)

    monkeypatch.setattr(shards_module, failing, fail)
    with pytest.raises(OSError, match="the disk is full"):
        network(seed=1).save(folder / "net.safetensors", max_shard_size=LIMIT)
    assert same(td.load(folder / "net.safetensors"), dag)


def rewrite(folder, change):
    index = index_of(folder)
    change(index)
    (folder / "net.safetensors.index.json").write_text(json.dumps(index))


def first_shard(folder):
    return folder / min(index_of(folder)["weight_map"].values())


def outside(index):
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../net.safetensors")


def without_tensor(index):
    index["weight_map"].popitem()


DAMAGE = {
    "a shard is missing": (lambda folder: first_shard(folder).unlink(), "is missing; all files belong in one folder"),
    "a shard is cut short": (lambda folder: first_shard(folder).write_bytes(b"{}"), "not a complete safetensors file"),
    "a tensor is not listed": (lambda folder: rewrite(folder, without_tensor), "disagree about the tensor"),
    "a shard lies elsewhere": (lambda folder: rewrite(folder, outside), "no safetensors file in the same folder"),
    "no tables": (lambda folder: rewrite(folder, lambda index: index.pop("weight_map")), "lacks the tables"),
    "no graph": (lambda folder: rewrite(folder, lambda i: i["metadata"].pop("torch_dag")), "weights without a graph"),
    "no JSON": (lambda folder: (folder / "net.safetensors.index.json").write_text("{"), "is no index"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_shards_are_refused(saved, name):
    damage, message = DAMAGE[name]
    damage(saved[1])
    with pytest.raises(SerializationError, match=message):
        td.load(saved[1] / "net.safetensors")


def test_shards_of_another_model_are_refused(saved, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    network(layers=6).save(other / "net.safetensors", max_shard_size=LIMIT)
    shutil.copy(max(other.glob("net-*")), first_shard(saved[1]))
    with pytest.raises(SerializationError, match="disagree about the tensor"):
        td.load(saved[1] / "net.safetensors")


@pytest.mark.parametrize("size", [0, -1, "0GB", "many", "5 potatoes", ""])
def test_what_is_no_size_is_refused_before_anything_is_written(tmp_path, size):
    with pytest.raises(SerializationError, match="is no size of a file"):
        network().save(tmp_path / "net.safetensors", max_shard_size=size)
    assert not list(tmp_path.iterdir())


def test_sizes_are_read_with_their_units():
    assert [byte_count(size) for size in (7, "7", "2kb", "1.5 GiB")] == [7, 7, 2000, 3 * 2**29]
