"""Model cards: measured values, and the words of their authors."""

from __future__ import annotations

import re

import pytest
import torch
import yaml
from torch import nn

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_hub import HubError, model_card, save_pretrained
from torch_dag_hub.card_file import BEGIN, END


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)---\n", card, re.DOTALL)[1])


def test_a_card_says_what_was_measured(dag, pruned):
    card = model_card(pruned, "me/net", metadata={"base_model": "me/big"})
    (entry,) = pruned.provenance["removals"]
    repair, proof = pruned.provenance["recovery"], entry["proof"]
    before, after = entry["costs"]["flops"]
    assert f"| before pruning | {before:,} | {sum(p.numel() for p in dag.parameters()):,} |" in card
    assert f"| this file | {td.flops(pruned, torch.ones(1, 3, 16, 16)).flops:,} |" in card
    assert f"| {after:,} |" in card
    orbits = f"{entry['plan']['changed']} of {entry['plan']['orbits']}"
    agreement = f"{proof['vertices']} | {proof['equal']} | {proof['worst']:.1e} at `{proof['vertex']}`"
    assert f"| 1 | {orbits} | {agreement} |" in card
    assert f"by {repair['error_before']:.2%} before the repair and by {repair['error_after']:.2%} after it" in card
    for key, (left, of) in entry["plan"]["widths"].items():
        assert f"| 1 | `{key}` | {left} | {of} |" in card
    assert f"torch `{torch.__version__}`" in card
    assert 'model = from_pretrained("me/net")' in card
    assert "FLOPs of one sample of 3x16x16" in card


def test_the_front_matter_is_yaml(pruned):
    given = {"base_model": "me/big", "datasets": ["a: b", "c"], "license": "mit"}
    entries = front_matter(model_card(pruned, "net", metadata=given, pretrained_cfg={"license": "apache-2.0"}))
    assert entries == {"library_name": "torch-dag", "tags": ["torch-dag", "pruned", "timm"], **given}
    assert front_matter(model_card(pruned, "net", pretrained_cfg={"license": "bsd"}))["license"] == "bsd"


def test_a_graph_that_was_not_pruned_claims_nothing_about_pruning(dag):
    card = model_card(dag, "net")
    assert "prun" not in card
    assert "## Proof" not in card
    assert front_matter(card)["tags"] == ["torch-dag", "timm"]


def test_a_removal_without_a_proof_is_said_to_be_without(dag):
    pruned = tdp.OneShotChannelPruning(dag, None, 0.5, verify=False).finalize()
    assert "| 1 | 2 of 2 | not compared |" in model_card(pruned, "net")


def test_models_of_other_inputs_are_not_offered_to_timm():
    dag = td.build_from_unstructured_module(nn.Embedding(5, 3), torch.zeros(2, 4, dtype=torch.int64))
    card = model_card(dag, "net")
    assert "timm" not in card
    assert "FLOPs of one sample of 4," in card


def test_saving_again_replaces_the_measured_part_alone(dag, pruned, tmp_path):
    save_pretrained(dag, tmp_path)
    card = tmp_path / "README.md"
    first = card.read_text()
    card.write_text(
        first.replace("# ", "# My ", 1).replace("tags:\n- torch-dag\n- timm\n", "tags: [mine]\n") + "\nMy words.\n"
    )
    save_pretrained(pruned, tmp_path)
    second = card.read_text()
    assert "## Proof" in second
    assert "## Proof" not in first
    assert front_matter(second)["tags"] == ["mine"]
    assert second.split(BEGIN)[0].endswith(f"# My {tmp_path.name}\n\n")
    assert second.endswith(f"{END}\n\nMy words.\n")
    save_pretrained(pruned, tmp_path)
    assert card.read_text() == second


@pytest.mark.parametrize(
    "own", ["# Ours\n", "---\nlicense: mit\n---\n# Ours\n", "---\r\nlicense: mit\r\n---\r\n# Ours\r\n"]
)
def test_cards_of_others_keep_every_word(pruned, own):
    card = model_card(pruned, "net", existing=own)
    assert card.replace("library_name: torch-dag\ntags:\n- torch-dag\n- pruned\n- timm\n", "").count(own.rstrip()) == 1
    assert (BEGIN in card, END in card) == (True, True)
    assert model_card(pruned, "net", existing=card) == card


@pytest.mark.parametrize("body", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_broken_markers_are_refused(pruned, body):
    with pytest.raises(HubError, match=r"README.md has \d times .*, not one pair in this order"):
        model_card(pruned, "net", existing=f"# Ours\n{body}\n")


def test_front_matter_that_cannot_be_read_is_refused(pruned, tmp_path):
    with pytest.raises(HubError, match=r"the front matter of README.md is no valid YAML"):
        model_card(pruned, "net", existing="---\na: [\n---\n")
    with pytest.raises(HubError, match=r"is a list, not a list of entries 'key: value'"):
        model_card(pruned, "net", existing="---\n- a\n---\n")
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(HubError, match=r"README.md is not in UTF-8"):
        save_pretrained(pruned, tmp_path)


def test_names_from_files_cannot_leave_their_cells(pruned):
    evil = f"x|y`\n{END}<script>"
    (entry,) = pruned.provenance["removals"]
    pruned.provenance["model"] = evil
    pruned.provenance["removals"] = ({**entry, "plan": {**entry["plan"], "widths": {evil: (1, 2)}}},)
    card = model_card(pruned, "net")
    assert card.count(END) == 1
    assert "| 1 | `x\\|y' <script>` | 1 | 2 |" in card
    assert model_card(pruned, "net", existing=card) == card


@pytest.mark.parametrize("damage", [
    {"removals": 3}, {"removals": ({},)}, {"removals": ({"plan": None},)},
    {"recovery": ()}, {"recovery": {"method": 1}},
])  # fmt: skip
def test_damaged_provenance_is_refused_by_name(pruned, damage):
    (name,) = damage
    pruned.provenance.update(damage)
    with pytest.raises(HubError, match=rf"dag.provenance\['{name}'\] has another form than torch-dag-pruning gives it"):
        model_card(pruned, "net")
