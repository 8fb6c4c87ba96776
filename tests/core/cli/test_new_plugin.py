"""``torch-dag new-plugin``: what it writes and what it refuses; tests/plugins builds and runs the result."""

from __future__ import annotations

import ast
import tomllib

import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app
from torch_dag_core.cli.new_plugin import FILES, _requirement, filled, words_for
from torch_dag_core.plugins.hookspecs import HOOK_API


def write(folder, name):
    return CliRunner().invoke(app, ["new-plugin", name, "--directory", str(folder)])


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["blur", "acme-blur2", "tensor", "module-codec"])
def test_a_package_is_written_whole(tmp_path, name):
    result = write(tmp_path, name)
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"torch-dag-{name}"
    found = files_in(folder)
    assert found.keys() == {filled(path, words_for(name)) for path in FILES}
    assert not [path for path, text in found.items() if "@" in text.replace("actions/checkout@v4", "").replace(
        "actions/setup-python@v5", "").replace("@hookimpl", "").replace("@pytest", "")]  # fmt: skip
    assert [ast.parse(text) for path, text in found.items() if path.endswith(".py")]
    project = tomllib.loads(found["pyproject.toml"])["project"]
    package = f"torch_dag_{name.replace('-', '_')}"
    assert project["entry-points"] == {"torch_dag": {name: f"{package}.plugin"}}
    assert f"TORCH_DAG_HOOK_API = {HOOK_API}" in found[f"src/{package}/plugin.py"]


@pytest.mark.parametrize("name", ["Blur", "2d", "a_b", "a--b", "-a", "core", "user", "class", "../up", ""])
def test_a_bad_name_is_refused(tmp_path, name):
    result = write(tmp_path, name) if not name.startswith("-") else CliRunner().invoke(app, ["new-plugin", "--", name])
    assert result.exit_code != 0
    assert "cannot name a plugin" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path):
    write(tmp_path, "blur")
    before = files_in(tmp_path)
    result = write(tmp_path, "blur")
    assert result.exit_code != 0
    assert "exists already" in result.output
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("version", "requirement"),
    [
        ("0.1.3", "torch-dag-core>=0.1,<0.2"),
        ("1.4.0", "torch-dag-core>=1.4,<2"),
        ("2.0.dev1", "torch-dag-core>=2.0,<3"),
        ("", "torch-dag-core"),
    ],
)
def test_the_core_is_required_up_to_the_next_release_that_may_break(version, requirement):
    assert _requirement(version) == requirement
