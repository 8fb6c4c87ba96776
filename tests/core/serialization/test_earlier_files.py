"""Files of an earlier release load, and compute what they computed then.

``data/NAME.safetensors`` is a saved graph, ``data/NAME.calls.safetensors`` an input ``x`` with the outputs ``y0``,
``y1``, ... in the order of the output's slots; ``data/keys.json`` lists every op key of that release.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils import _pytree as pytree

import torch_dag_core as td
from torch_dag_core.plugins.loading import default_registry

DATA = Path(__file__).parent / "data"
NAMES = ("attentive", "convolutional", "recurrent")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_an_earlier_release_computes_what_it_computed_then(name):
    call = load_file(DATA / f"{name}.calls.safetensors")
    dag = td.load(DATA / f"{name}.safetensors").eval()
    results = pytree.tree_leaves(dag(call.pop("x")))
    assert len(results) == len(call)
    for index, result in enumerate(results):
        torch.testing.assert_close(result, call[f"y{index}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_an_earlier_release_is_saved_and_loaded_again_with_equal_outputs(name, tmp_path):
    dag = td.load(DATA / f"{name}.safetensors").eval()
    dag.save(tmp_path / "again.safetensors")
    again = td.load(tmp_path / "again.safetensors").eval()
    x = load_file(DATA / f"{name}.calls.safetensors")["x"]
    first, second = pytree.tree_leaves(dag(x)), pytree.tree_leaves(again(x))
    assert all(map(torch.equal, first, second))
    assert list(dag.state_dict()) == list(again.state_dict())


def test_every_op_key_of_an_earlier_release_is_readable():
    registry = default_registry()
    missing = [key for key in json.loads((DATA / "keys.json").read_text()) if registry.find(key) is None]
    assert not missing
