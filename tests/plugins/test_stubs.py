"""Distributions that are stubs, built and installed as a stranger would: they say so everywhere and still analyse."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import InputSpec, Parameter, TensorSpec
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.arithmetic import Add

STUBS = {"torch_dag_block_pruning": "block-pruning", "torch_dag_llrc": "low-rank"}


@pytest.fixture(scope="module")
def environment(environments):
    return environments("core", *STUBS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save x + layer(x)."""
    torch.manual_seed(0)
    dag = DagModule()
    x = dag.add_input("x")
    dag.set_output(dag.add_vertex("sum", Add(), [x, dag.add_vertex("layer", nn.Linear(64, 64), [x])]))
    dag.input_spec = InputSpec((Parameter("x", Slot(0)),), (TensorSpec(torch.float32, (None, 64), (2, 64)),))
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    dag.save(path)
    return path


def test_the_tables_call_them_stubs(environment):
    algorithms = environment.run("torch-dag", "algorithms").stdout
    plugins = environment.run("torch-dag", "plugins").stdout
    for folder, name in STUBS.items():
        distribution = folder.replace("_", "-")
        (line,) = [line for line in algorithms.splitlines() if f" {name} " in line]
        assert [cell.strip() for cell in line.split("│")][1:4] == [name, distribution, "stub"]
        (line,) = [line for line in plugins.splitlines() if f" {distribution} " in line]
        assert "on, stub" in line


@pytest.mark.parametrize("name", STUBS.values())
def test_a_run_shows_the_analysis_and_one_clear_line(environment, saved, name):
    result = environment.run(
        "torch-dag", "run", name, saved, "--config", "keep_flops=0.9", "training_steps=9", check=False
    )
    assert result.returncode == 1
    assert result.stdout.startswith(f"nothing will be saved; --out saves the result\n{name}: 1 candidates, ")
    assert re.fullmatch(
        rf"error: {name} is a stub: prepare\(\) does not exist yet, it needs .*; analyze\(\) works\n",
        result.stderr,
    )


@pytest.mark.parametrize("folder", STUBS)
def test_their_metadata_and_documentation_call_them_stubs(folder):
    root = Path(__file__).parents[2] / "plugins" / folder
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["description"].startswith("STUB: ")
    assert "(STUB)" in (root / "README.md").read_text(encoding="utf-8").splitlines()[0]
    assert "Typing :: Typed" in project["classifiers"]
    assert (root / "src" / folder / "py.typed").exists()
