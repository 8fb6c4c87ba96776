"""Uploads and downloads, with a hub on the loopback device."""

from __future__ import annotations

import json

import torch

import torch_dag_core as td

PUSH = """
import torch_dag_core as td
from torch_dag_hub import push_to_hub
print(push_to_hub(td.load("graph.safetensors"), "me/small", metadata={"license": "mit"}))
"""
LOAD = """
import sys, torch
import timm
import torch_dag_hub.with_timm
from torch_dag_hub import PrunedNet, from_pretrained

images = torch.load("images.pt")
models = [from_pretrained("me/small"), PrunedNet.from_pretrained("me/small"), timm.create_model("hf-hub:me/small")]
old = from_pretrained("me/small", revision=sys.argv[1] if sys.argv[1:] else "main")
torch.save([model(images).detach() for model in (*models, old)], "outputs.pt")
assert PrunedNet.from_pretrained("me/small", local_files_only=True).pretrained_cfg["num_classes"] == 5
"""


def test_what_was_pushed_can_be_pulled(on_hub, hub, pruned, images, tmp_path):
    pruned.save(tmp_path / "graph.safetensors")
    torch.save(images, tmp_path / "images.pt")
    assert on_hub(PUSH).strip() == f"{hub.address}/me/small/commit/{hub.repos['me/small'][-1][0]}"
    files = hub.files("me/small")
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert json.loads(files["config.json"])["architecture"] == "torch_dag"
    assert 'create_model("hf-hub:me/small")' in files["README.md"].decode()
    assert len(hub.repos["me/small"]) == 2  # created, then everything in one commit

    on_hub(LOAD)
    wanted = pruned(images).detach()
    outputs = torch.load(tmp_path / "outputs.pt")
    assert len(outputs) == 4
    assert all(torch.equal(output, wanted) for output in outputs)
    assert ("HEAD", "/me/small/resolve/main/config.json") in hub.requests  # which the Hub counts as a download


def test_a_card_on_the_hub_keeps_what_its_author_wrote(on_hub, hub, pruned, tmp_path):
    pruned.save(tmp_path / "graph.safetensors", max_shard_size=1000)
    card = b"---\nlicense: gpl-3.0  # ours\n---\n\n# Ours\r\n\nAll of it.\n"
    hub.commit("me/small", {"README.md": card, "model-00aa-00001-of-00002.safetensors": b"", "notes.txt": b"kept"})
    on_hub(PUSH)
    files = hub.files("me/small")
    text = files["README.md"].decode()
    assert text.startswith("---\nlicense: gpl-3.0  # ours\nlibrary_name: torch-dag\n")
    assert "# Ours\r\n\nAll of it.\n" in text
    assert "## Proof" in text
    assert set(files) == {"README.md", "notes.txt", "config.json", "model.safetensors"}


def test_a_change_meanwhile_is_not_overwritten(on_hub, hub, pruned, tmp_path):
    pruned.save(tmp_path / "graph.safetensors")
    hub.before_commit = lambda: hub.commit("me/small", {"README.md": b"meanwhile"})
    assert "A commit has happened since" in on_hub(PUSH, fails=True)
    assert hub.files("me/small")["README.md"] == b"meanwhile"
    assert "model.safetensors" not in hub.files("me/small")


def test_nothing_is_created_for_what_cannot_be_shared(on_hub, hub, pruned, tmp_path):
    pruned.provenance["removals"] = "many"
    pruned.save(tmp_path / "graph.safetensors")
    assert "HubError: dag.provenance['removals'] has another form" in on_hub(PUSH, fails=True)
    assert hub.requests == []


def test_the_mixin_and_the_command_push_too(on_hub, hub, pruned, images, tmp_path):
    pruned.save(tmp_path / "graph.safetensors")
    on_hub("""
import torch_dag_core as td
from torch_dag_core.cli.app import app
from torch_dag_hub import PrunedNet
PrunedNet(td.load("graph.safetensors"), {"mean": [0.5, 0.5, 0.5]}).push_to_hub("small", commit_message="hello")
app(["share", "graph.safetensors", "--to", "me/other", "--base-model", "me/small"])
""")
    assert json.loads(hub.files("me/small")["config.json"])["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]
    assert "base_model: me/small\n" in hub.files("me/other")["README.md"].decode()
    (tmp_path / "copy.safetensors").write_bytes(hub.files("me/other")["model.safetensors"])
    assert torch.equal(td.load(tmp_path / "copy.safetensors")(images), pruned(images))
