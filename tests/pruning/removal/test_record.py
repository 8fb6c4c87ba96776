"""The provenance of a pruned graph says what was done to it, in every file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_core.testing import awaken
from torch_dag_pruning.removal import record


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.b(self.norm(self.a(x)).relu()).relu().mean((2, 3)))


def converted():
    torch.manual_seed(0)
    return td.build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 3, 6, 6))


@pytest.fixture
def dag():
    return converted()


@pytest.fixture
def cut(dag):
    analysis = tdp.analyze(dag)
    return tdp.Cut(analysis, tdp.Plan.random(analysis, 0.5))


def removals(dag):
    return dag.provenance["removals"]


def test_a_removal_notes_widths_costs_and_versions(cut, dag):
    (entry,) = removals(cut.removed())
    assert dict(entry["plan"]["widths"]) == {"a.weight:0": (4, 8), "b.weight:0": (3, 6)}
    assert (entry["plan"]["orbits"], entry["plan"]["changed"]) == (2, 2)
    assert entry["inputs"][0][1:] == (3, 6, 6)
    assert entry["costs"]["parameters"] == (sum(p.numel() for p in dag.parameters()), 4 * 27 + 4 + 8 + 15 + 16)
    before, after = entry["costs"]["flops"]
    assert (before, after) == (cut.analysis.cost(), tdp.analyze(cut.removed()).cost())
    assert entry["versions"] == {
        "torch-dag-core": td.__version__, "torch-dag-pruning": tdp.__version__, "torch": torch.__version__,
    }  # fmt: skip
    assert "proof" not in entry
    assert "removals" not in dag.provenance


def test_what_the_conversion_noted_stays(cut, dag):
    kept = {key: value for key, value in cut.removed().provenance.items() if key != "removals"}
    assert kept == dag.provenance


def test_a_proof_is_noted_in_the_graph_that_it_is_of(cut):
    removed = cut.removed()
    proof = cut.prove(removed)
    noted = removals(removed)[-1]["proof"]
    assert noted == {
        "dtype": "float32", "worst": proof.worst, "vertex": proof.vertex, "vertices": proof.vertices,
        "equal": proof.equal, "effect": proof.effect,
    }  # fmt: skip
    assert 0 < proof.equal <= proof.vertices
    other = cut.removed()
    assert "proof" not in removals(other)[-1]


def test_a_proof_of_a_graph_without_a_note_leaves_no_note(cut):
    removed = cut.removed()
    removed.provenance.pop("removals")
    cut.prove(removed)
    assert "removals" not in removed.provenance


def test_everything_survives_saving_and_loading(cut, tmp_path):
    removed = cut.removed()
    cut.prove(removed)
    repaired = cut.recover(removed, [torch.randn(30, 3, 6, 6)]).dag
    repaired.save(tmp_path / "pruned.safetensors")
    again = td.load(tmp_path / "pruned.safetensors")
    assert again.provenance == repaired.provenance
    assert again.provenance.keys() >= {"removals", "recovery"}
    assert again.provenance["recovery"]["repaired"] == len(again.provenance["recovery"]["layers"])


def test_equal_work_gives_equal_files(tmp_path):
    for name in ("one", "two"):
        dag = converted()
        analysis = tdp.analyze(dag)
        plan = tdp.Plan.random(analysis, 0.5)
        tdp.remove_channels(dag, plan, analysis=analysis).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_later_removals_are_listed_behind_and_drop_the_repair_before(cut):
    repaired = cut.recover(cut.removed(), [torch.randn(30, 3, 6, 6)]).dag
    analysis = tdp.analyze(repaired)
    again = tdp.remove_channels(repaired, tdp.Plan.random(analysis, 0.5), analysis=analysis)
    first, second = removals(again)
    assert first == removals(repaired)[0]
    assert dict(second["plan"]["widths"]) == {"a.weight:0": (2, 4), "b.weight:0": (2, 3)}
    assert "proof" in second
    assert "recovery" not in again.provenance


def test_of_an_emptied_orbit_the_costs_are_those_of_what_is_left(dag):
    analysis = tdp.analyze(dag)
    removed = tdp.remove_channels(dag, tdp.Plan.keeping(analysis, {"b.weight:0": ()}), analysis=analysis)
    (entry,) = removals(removed)
    assert entry["costs"]["parameters"][1] == sum(p.numel() for p in removed.parameters())
    assert entry["plan"]["widths"]["b.weight:0"] == (0, 6)


def test_notes_are_bounded(cut, dag, monkeypatch, tmp_path):
    monkeypatch.setattr(record, "MOST_NAMES", 1)
    monkeypatch.setattr(record, "MOST_REMOVALS", 3)
    removed = cut.removed()
    for _ in range(5):
        analysis = tdp.analyze(removed)
        removed = tdp.Cut(analysis, tdp.Plan.whole(analysis)).removed()
    assert len(removals(removed)) == 3
    once = cut.recover(cut.removed(), [torch.randn(30, 3, 6, 6)]).dag
    assert dict(removals(once)[0]["plan"]["widths"]) == {"a.weight:0": (4, 8)}
    assert removals(once)[0]["plan"]["changed"] == 2
    assert (len(once.provenance["recovery"]["layers"]), once.provenance["recovery"]["repaired"]) == (1, 2)


def test_files_hold_little_more_and_no_paths(cut, tmp_path):
    removed = cut.removed()
    cut.prove(removed)
    removed.save(tmp_path / "pruned.safetensors")
    with safe_open(tmp_path / "pruned.safetensors", "pt") as file:
        (document,) = map(json.loads, file.metadata().values())
    text = json.dumps(document["graph"]["provenance"])
    assert len(text) < 2000
    assert "/" not in text


def test_the_digest_is_of_the_slots(cut):
    plan = cut.plan
    other = plan.with_orbit("a.weight:0", [slot for slot in range(8) if slot not in plan.kept["a.weight:0"]])
    assert record.digest(plan) == removals(cut.removed())[0]["plan"]["sha256"]
    assert record.digest(other) != record.digest(plan)
    assert other.counts() == plan.counts()


def test_one_shot_pruning_in_steps_notes_every_step(dag):
    pruning = tdp.OneShotChannelPruning(dag, (3, 6, 6), 0.5, steps=2, recover="none")
    pruned = pruning.finalize()
    assert len(removals(pruned)) == 2
    assert all("proof" in entry for entry in removals(pruned))
