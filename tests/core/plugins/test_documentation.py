"""The page about plugins says of every hook what its spec says, and names users that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from torch_dag_core.plugins.hookspecs import HOOK_API

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "plugins.md"
SPECS = (
    "torch_dag_core/src/torch_dag_core/plugins/hookspecs.py",
    "torch_dag_pruning/src/torch_dag_pruning/hookspecs.py",
    "plugins/torch_dag_export/src/torch_dag_export/hookspecs.py",
)


def functions(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


HOOKS = {name: node for path in SPECS for name, node in functions(path).items() if name.startswith("torch_dag_")}
SECTIONS = dict(re.findall(r"^### (torch_dag_\w+)\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def test_every_hook_has_a_heading_and_no_other_has():
    assert SECTIONS.keys() == HOOKS.keys()


@pytest.mark.parametrize("name", HOOKS)
def test_the_page_shows_the_signature(name):
    node = HOOKS[name]
    signature = f"def {name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
    assert f"```python\n{signature}\n```" in SECTIONS[name]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_users_in_this_repository(name):
    users = re.findall(r"`([\w/]+/\w+\.py)`", SECTIONS[name].partition("Used by")[2])
    assert users
    assert [path for path in users if name not in functions(path)] == []


def test_every_hook_has_a_test():
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    tested = {name for text in texts for name in re.findall(r"def (test_hook_\w+)", text)}
    assert {f"test_hook_{name.removeprefix('torch_dag_')}" for name in HOOKS} - tested == set()


def test_the_page_states_the_version_of_the_hooks():
    assert f"This page is version {HOOK_API}." in PAGE.read_text()
    assert f"`TORCH_DAG_HOOK_API = {HOOK_API}`" in PAGE.read_text()


def test_a_plugin_for_a_new_module_takes_less_than_40_lines():
    files = re.findall(r'^```\w+ title="(\w+\.\w+)"\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["pyproject.toml", "torch_dag_gate.py"]
    lines = [line for _, text in files for line in text.splitlines() if line.strip()]
    assert len(lines) < 40
    (claimed,) = re.findall(r"^## A module that cannot be traced, in (\d+) lines", PAGE.read_text(), re.MULTILINE)
    assert len(lines) <= int(claimed)
