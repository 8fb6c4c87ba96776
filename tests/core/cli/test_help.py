"""Help and completion come at once, and unknown commands are told with what may be meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app
from torch_dag_core.cli.unknown_command import COMMANDS_OF_PLUGINS
from torch_dag_core.plugins.loading import reload_plugins

SCRIPT = """
import json, sys
from click.testing import CliRunner
from torch_dag_core.cli.app import app

def loads(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return "torch" in sys.modules

calls = [["--help"], ["--version"], ["algorithms"], *([name, "--help"] for name in app.list_commands(None))]
print(json.dumps([call for call in calls if loads(*call)]))
"""


def test_help_imports_no_torch():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert (json.loads(result.stdout), result.stderr) == ([], "")


def test_completion_imports_no_torch():
    code = "import sys\ntry:\n import torch_dag_core.cli as c; c.main()\nfinally:\n assert 'torch' not in sys.modules"
    words = {"_TORCH_DAG_COMPLETE": "bash_complete", "COMP_WORDS": "torch-dag conv", "COMP_CWORD": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert (result.stdout.strip(), result.stderr) == ("plain,convert", "")


def test_every_command_has_an_example():
    for name in app.list_commands(None):
        last = CliRunner().invoke(app, [name, "--help"]).stdout.splitlines()[-1]
        assert last.strip().startswith(f"torch-dag {name}")


@pytest.fixture
def no_plugins(monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "")
    reload_plugins()
    yield
    reload_plugins()


def said(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    return result.stderr.splitlines()[-1]


@pytest.mark.usefixtures("no_plugins")
def test_typos_are_recognised_without_plugins():
    assert said("konvert") == "Error: No such command 'konvert'; did you mean 'convert'?"
    assert said("prnue") == "Error: No such command 'prnue'; did you mean 'prune' of torch-dag-pruning?"
    assert said("xyzzy") == "Error: No such command 'xyzzy'; `torch-dag --help` lists the commands."


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize("name", COMMANDS_OF_PLUGINS)
def test_commands_of_plugins_that_are_not_there_name_their_distribution(name):
    assert said(name).startswith(
        f"Error: No such command {name!r}: it comes with {COMMANDS_OF_PLUGINS[name]}, which is"
    )
