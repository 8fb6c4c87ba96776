"""The command ``torch-dag`` and what plugins do to it."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app
from torch_dag_core.errors import ModelReferenceError

PAINTER = """
import click
from torch_dag_core.errors import ModelReferenceError

def fail():
    raise ModelReferenceError("no model\\nof that name")

@hookimpl
def torch_dag_commands():
    yield click.Command("paint", callback=lambda: click.echo("painted"))
    yield click.Command("fail", callback=fail)
"""


@pytest.fixture
def run(site, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_plugins_are_listed_with_their_hooks(site, run, op_source):
    site.install("art", op_source("art.blur"), version="2.5")
    result = run("plugins")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "sample-art" in line]
    assert [part in line for part in ("art", "2.5", "ops", "on")] == [True] * 4


def test_failed_and_disabled_plugins_are_listed(site, run, op_source, monkeypatch):
    site.install("art", op_source("art.blur"))
    site.install("bad", "@hookimpl\ndef torch_dag_ops(): 1 / 0")
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "bad")
    result = run("plugins")
    assert result.exit_code == 0
    (art, bad) = [line for line in result.stdout.splitlines() if "│" in line and "sample-" in line]
    assert "off" in art
    assert "failed" in bad
    assert "plugin 'bad' (sample-bad 1.0) raised ZeroDivisionError in torch_dag_ops: " in result.stdout


def test_a_failed_plugin_is_warned_of_by_other_commands(site, run):
    site.install("art", PAINTER)
    site.install("bad", "1 / 0")
    result = run("paint")
    assert result.stdout == "painted\n"
    assert result.stderr.startswith("warning: plugin 'bad' (sample-bad 1.0) cannot be imported: ZeroDivisionError")
    assert result.stderr.count("\n") == 1


def test_a_conflict_of_two_plugins_is_shown(site, run, op_source):
    site.install("one", op_source("one.blur", ("blur",)))
    site.install("two", op_source("two.blur", ("blur",)))
    result = run("plugins")
    assert result.exit_code == 0
    assert "is registered by 'sample-one' and again by 'sample-two'" in result.stdout


def test_a_plugin_adds_commands(site, run):
    site.install("art", PAINTER)
    assert run("paint").output == "painted\n"
    assert "paint" in run("--help").output


def test_a_plugin_cannot_replace_a_command(site, run):
    site.install("art", PAINTER.replace('"paint"', '"plugins"'))
    assert "painted" not in run("plugins").output
    assert "adds the Command 'plugins', which torch-dag itself has" in run("fail").stderr


def test_an_error_is_one_line(site, run):
    site.install("art", PAINTER)
    result = run("fail")
    assert (result.exit_code, result.stderr) == (1, "error: no model of that name\n")


def test_debug_shows_the_traceback(site, run):
    site.install("art", PAINTER)
    result = run("--debug", "fail")
    assert isinstance(result.exception, ModelReferenceError)


def test_a_wrong_list_of_plugins_is_one_line_even_for_help(site, run, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "purple")
    result = run("--help")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: TORCH_DAG_PLUGINS names the plugin 'purple'")


def test_other_errors_are_not_hidden(site, run):
    site.install("art", PAINTER.replace("click.echo", "int"))
    assert isinstance(run("paint").exception, ValueError)


def test_an_unknown_command_is_a_usage_error(site, run):
    assert run("dance").exit_code == click.UsageError.exit_code
