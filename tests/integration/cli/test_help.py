"""The examples in the help of commands do what they say."""

from __future__ import annotations

import shlex

import pytest
import torch
from click.testing import CliRunner

from torch_dag_core.cli.app import app
from torch_dag_core.cli.unknown_command import COMMANDS_OF_PLUGINS
from torch_dag_core.plugins.hookspecs import PROJECT
from torch_dag_core.plugins.loading import plugin_manager

NEEDS = {"coverage-table": "coverage", "sweep-plot": "sweep"}
"""Commands whose examples read what that of another wrote."""


def examples():
    """Return the arguments of every example by command."""
    texts = {name: CliRunner().invoke(app, [name, "--help"]).stdout for name in app.list_commands(None)}
    return {name: shlex.split(text.splitlines()[-1])[1:] for name, text in texts.items()}


@pytest.fixture
def folder(tmp_path):
    """A folder with what the examples read."""
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    for index in range(2):
        pixels = torch.randint(256, (64, 64, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("name", examples())
def test_examples_run(folder, monkeypatch, name):
    pytest.importorskip("timm")
    if name == "sweep-plot":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(folder)
    for each in filter(None, (NEEDS.get(name), name)):
        result = CliRunner().invoke(app, examples()[each])
        assert (result.exit_code, result.exception) == (0, None), result.output


def test_commands_of_our_plugins_are_known_without_them():
    hook = plugin_manager().hook.torch_dag_commands
    ours = [impl for impl in hook.get_hookimpls() if impl.plugin.__name__.startswith(f"{PROJECT}_")]
    found = {command.name for impl in ours for command in impl.function()}
    assert found == set(COMMANDS_OF_PLUGINS)
