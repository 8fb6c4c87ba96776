"""Folders: what is written, what is left alone, what is read back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_core.serialization.reader import DEFAULT_NAME
from torch_dag_hub import HubError, PrunedNet, from_pretrained, push_to_hub, save_pretrained
from torch_dag_hub.layout import MODEL


def test_folders_come_back(pruned, images, tmp_path):
    assert save_pretrained(pruned, tmp_path / "a" / "b") == tmp_path / "a" / "b"
    again = from_pretrained(tmp_path / "a" / "b")
    assert torch.equal(again(images), pruned(images))
    assert again.provenance == pruned.provenance
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert MODEL == DEFAULT_NAME


def test_large_graphs_are_in_several_files(pruned, images, tmp_path):
    save_pretrained(pruned, tmp_path, max_shard_size=500)
    assert not (tmp_path / "model.safetensors").exists()
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert torch.equal(from_pretrained(str(tmp_path))(images), pruned(images))
    save_pretrained(pruned, tmp_path)
    assert list(tmp_path.glob("*.safetensors*")) == [tmp_path / "model.safetensors"]


def test_equal_graphs_give_equal_folders(pruned, tmp_path):
    for name in ("one", "two"):
        save_pretrained(pruned, tmp_path / name, name="net")
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_cannot_be_shared_leaves_the_folder_as_it_was(pruned, tmp_path):
    save_pretrained(pruned, tmp_path / "net")
    before = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    changed = pruned.clone()
    nn.init.zeros_(changed.get_vertex_by_name("head").module.weight)
    for wrong in (
        {"metadata": {1: 2}},
        {"pretrained_cfg": {"mean": {0.5}}},
        {"pretrained_cfg": {"input_size": [1, 9]}},
    ):
        with pytest.raises(HubError):
            save_pretrained(changed, tmp_path / "net", **wrong)
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == before
    with pytest.raises(HubError):
        save_pretrained(changed, tmp_path / "new", metadata={"a": float("nan")})
    assert not (tmp_path / "new").exists()


def test_messages_about_settings(pruned, tmp_path):
    with pytest.raises(HubError, match=r"metadata\['a'\] cannot be written to a file: .*; use texts, numbers"):
        save_pretrained(pruned, tmp_path, metadata={"a": object()})
    with pytest.raises(HubError, match=r"pretrained_cfg is a mapping, such as that of a model of timm, not a list"):
        save_pretrained(pruned, tmp_path, pretrained_cfg=[1])
    with pytest.raises(HubError, match=r"input_size'\] is \(1, 16, 16\), which the graph does not take.*\(3, 16, 16\)"):
        save_pretrained(pruned, tmp_path, pretrained_cfg={"input_size": (1, 16, 16)})


def test_places_that_hold_nothing(tmp_path):
    with pytest.raises(
        HubError, match=r"there is no folder './missing'; a repository on the Hub is written 'user/name'"
    ):
        from_pretrained("./missing")
    with pytest.raises(HubError, match=r"there is no folder"):
        from_pretrained(tmp_path / "missing")
    with pytest.raises(HubError, match=r"is a folder on this machine, for which 'revision' means nothing"):
        from_pretrained(tmp_path, revision="v1")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        from_pretrained(tmp_path)


def test_only_graphs_are_shared(tmp_path):
    for share in (save_pretrained, push_to_hub):
        with pytest.raises(td.NotAGraphError, match="convert it first"):
            share(nn.ReLU(), str(tmp_path / "net"))


def test_nets_have_the_methods_of_the_hub(pruned, images, tmp_path):
    net = PrunedNet(pruned, {"mean": [0.5, 0.5, 0.5]})
    net.save_pretrained(tmp_path / "net")
    again = PrunedNet.from_pretrained(tmp_path / "net")
    assert torch.equal(again(images), pruned(images))
    assert again.pretrained_cfg["mean"] == [0.5, 0.5, 0.5]
    again.save_pretrained(tmp_path / "again")
    one, two = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("net", "again"))
    assert one == two
    half = tdp.OneShotChannelPruning(again.dag, None, 0.6).finalize()
    assert len(half.provenance["removals"]) == 2
    with pytest.raises(HubError, match=r"are made from the graph; leave config and model_card_kwargs out"):
        net.push_to_hub("me/net", config={"a": 1})
    with pytest.raises(td.NotAGraphError, match="convert it first"):
        PrunedNet(nn.ReLU())


def test_a_folder_loads_without_this_plugin_and_without_pruning(pruned, images, tmp_path):
    save_pretrained(pruned, tmp_path / "net")
    torch.save((images, pruned(images).detach()), tmp_path / "wanted.pt")
    shutil.copytree(tmp_path / "net", tmp_path / "copy")
    script = (
        "import sys, torch; sys.modules.update(dict.fromkeys(('torch_dag_hub', 'torch_dag_pruning', 'timm')))\n"
        "import torch_dag_core as td\nimages, wanted = torch.load('wanted.pt')\n"
        "assert torch.equal(td.load('copy')(images), wanted)"
    )
    environment = {**os.environ, "TORCH_DAG_PLUGINS": ""}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)


def test_importing_the_package_imports_neither_torch_nor_the_hub():
    script = (
        "import sys, torch_dag_hub, torch_dag_hub.plugin, torch_dag_hub.command\n"
        "assert not {'torch', 'timm', 'huggingface_hub'} & sys.modules.keys()\nassert torch_dag_hub.__version__"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
