"""Learned pruning on several processes: equal masks, plans and networks, and checkpoints on another number of them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch_dag_pruning import Statistics

WORKER = Path(__file__).with_name("processes") / "worker.py"
run = runpy.run_path(str(WORKER))
SAME = {"rtol": 1e-4, "atol": 1e-5}


def launched(folder, scenario):
    """Run two processes to their end."""
    command = [sys.executable, str(WORKER), str(folder)]
    both = [
        subprocess.Popen([*command, str(rank), scenario], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    outputs = [each.communicate(timeout=300)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], outputs


def loaded(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    launched(folder, "data_parallel")
    return folder


@pytest.mark.parametrize(("mode", "last"), [("ranked", 2), ("ranked", 8), ("default", 8)])
def test_all_processes_have_the_same_masks_plan_and_network(folder, mode, last):
    first, second = (loaded(folder / f"{mode}_2_{rank}_{last}.pt") for rank in range(2))
    assert first["plan"] == second["plan"]
    for part in ("learned", "state"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part]), part


def test_statistics_are_added_over_processes(folder):
    first, second = (Statistics.load(folder / f"own_{rank}.safetensors") for rank in range(2))
    wanted = first + second
    for rank in range(2):
        found = Statistics.load(folder / f"all_{rank}.safetensors")
        assert found.samples == wanted.samples == 2 * first.samples
        for name, moments in wanted.moments.items():
            assert found.moments[name].count == moments.count
            torch.testing.assert_close(found.moments[name].gram, moments.gram)
            torch.testing.assert_close(found.moments[name].total, moments.total)
        for kind in ("total", "absolute", "square"):
            torch.testing.assert_close(getattr(found.gradients, kind), getattr(wanted.gradients, kind))
    assert any(not torch.equal(each.gram, second.moments[name].gram) for name, each in first.moments.items())


@pytest.mark.parametrize("last", [2, 8])
def test_two_processes_do_what_one_does_with_whole_batches(folder, last, tmp_path):
    run["main"](tmp_path, 0, 1, 0, last, load=False, mode="ranked")
    alone, together = loaded(tmp_path / f"ranked_1_0_{last}.pt"), loaded(folder / f"ranked_2_0_{last}.pt")
    assert alone["plan"] == together["plan"]
    for name in alone["learned"]:
        torch.testing.assert_close(together["learned"][name], alone["learned"][name], **SAME)


def test_a_checkpoint_of_two_processes_continues_on_one(folder):
    run["main"](folder, 0, 1, 2, 8, load=True, mode="ranked")
    gone_on, straight = loaded(folder / "ranked_1_0_8_loaded.pt"), loaded(folder / "ranked_2_0_8.pt")
    assert gone_on["plan"] == straight["plan"]
    torch.testing.assert_close(gone_on["learned"], straight["learned"], **SAME)


def test_a_checkpoint_of_one_process_continues_on_two(folder, tmp_path):
    run["main"](tmp_path, 0, 1, 0, 2, load=False, mode="ranked")
    launched(tmp_path, "resumed")
    first, second = (loaded(tmp_path / f"ranked_2_{rank}_8_loaded.pt") for rank in range(2))
    straight = loaded(folder / "ranked_2_0_8.pt")
    assert first["plan"] == second["plan"] == straight["plan"]
    torch.testing.assert_close(first["learned"], straight["learned"], **SAME)


def test_sharded_training_does_what_replicated_training_does(folder, tmp_path):
    launched(tmp_path, "sharded")
    first, second = (loaded(tmp_path / f"sharded_{rank}.pt") for rank in range(2))
    replicated = loaded(folder / "ranked_2_0_8.pt")
    assert first["plan"] == second["plan"] == replicated["plan"]
    for part in ("final", "state"):
        torch.testing.assert_close(dict(first[part]), dict(second[part]), rtol=0.0, atol=0.0)
        torch.testing.assert_close(dict(first[part]), dict(replicated["state"]), **SAME)
