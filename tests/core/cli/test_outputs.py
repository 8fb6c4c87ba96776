"""Commands write where they may, say so before any work, and overwrite nothing without being told to."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from torch_dag_core.algorithms.algorithm import AlgorithmSpec
from torch_dag_core.cli.app import app
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule

MODEL = ("torch.nn:Linear", "--arg", "4", "--arg", "4", "--size", "4")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path):
    build_from_unstructured_module(nn.Linear(4, 4), torch.ones(2, 4)).save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def refused(result, *said):
    """Assert a wrong use of the command, told in one sentence."""
    assert result.exit_code == 2
    assert all(text in " ".join(result.stderr.split()) for text in said), result.stderr
    assert "Traceback" not in result.output


@pytest.fixture
def no_work(monkeypatch):
    """Let every command fail that gets as far as a model."""

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr("torch_dag_core.cli.model_choice.load_model", fail)


@dataclass(frozen=True)
class NoSettings:
    """The config of an algorithm that has nothing to set."""


@pytest.fixture
def thinning(monkeypatch):
    spec = AlgorithmSpec(name="thinning", summary="Thins.", config=NoSettings, create=lambda dag, config: None)
    monkeypatch.setattr("torch_dag_core.cli.run.find_algorithm", {"thinning": spec}.__getitem__)


def pipe(path):
    os.mkfifo(path)
    return path


def link(path):
    path.symlink_to(pipe(path.with_name("pipe")))
    return path


def existing(path):
    path.write_bytes(b"mine")
    return path


PLACES = {
    "a folder": (lambda path: path.mkdir() or path, "it is a folder, not a file; choose another path"),
    "a pipe": (pipe, "it is a named pipe, not a file; choose another path"),
    "a link to a pipe": (link, "it is a named pipe, not a file; choose another path"),
    "a missing folder": (lambda path: path / "out.safetensors", "there is no folder"),
    "a file as folder": (lambda path: existing(path) / "out.safetensors", "is not a folder"),
    "an existing file": (existing, "exists already; choose another path, or overwrite it with --force"),
}
COMMANDS = {"convert": ("convert",), "run": ("run", "thinning")}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
@pytest.mark.usefixtures("no_work", "thinning")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_are_checked_before_any_work(tmp_path, command, place):
    make, said = PLACES[place]
    out = make(tmp_path / "x")
    before = {path: path.lstat().st_mode for path in tmp_path.rglob("*")}
    refused(run(*COMMANDS[command], *MODEL, "--out", out), said)
    assert {path: path.lstat().st_mode for path in tmp_path.rglob("*")} == before


@pytest.mark.usefixtures("no_work")
def test_a_device_is_refused(tmp_path, monkeypatch):
    out, real = existing(tmp_path / "device"), Path.stat

    def pretend(self, **options):
        found = real(self, **options)
        return os.stat_result((stat.S_IFCHR | 0o666, *found[1:])) if self.name == "device" else found

    monkeypatch.setattr(Path, "stat", pretend)
    refused(run("convert", *MODEL, "--force", "-o", out), "it is a device, not a file")
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("arguments", [(), ("--force",)])
def test_what_is_read_is_never_written(saved, tmp_path, arguments):
    content = saved.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(saved)
    for out in (saved, link):
        for order in ((saved, "-o", out, *arguments), (*arguments, "-o", out, saved)):
            refused(run("convert", *order), "is read by this command; choose another path")
    other = ("convert", *MODEL, "-o", saved, "--weights", saved, *arguments)
    refused(run(*other), "is read by this command")
    assert saved.read_bytes() == content


@pytest.mark.parametrize("place", ["before", "after"])
def test_force_overwrites_files(tmp_path, place):
    out = existing(tmp_path / "out.safetensors")
    order = ("--force", "-o", out) if place == "before" else ("-o", out, "--force")
    result = run("convert", *MODEL, *order)
    assert result.exit_code == 0, result.output
    assert DagModule.load(out)(torch.ones(1, 4)).shape == (1, 4)


def test_force_does_not_overwrite_folders(tmp_path):
    refused(run("convert", *MODEL, "-o", tmp_path, "--force"), "it is a folder")


def test_one_path_for_two_outputs_is_refused(tmp_path):
    @click.command()
    @click.option("--one", type=OutputPath())
    @click.option("--two", type=OutputPath())
    @may_overwrite
    def command(one, two):
        click.echo(f"{one.name} {two.name}")

    runner = CliRunner()
    same = runner.invoke(command, ["--one", str(tmp_path / "x"), "--two", str(tmp_path / "y" / ".." / "x")])
    assert same.exit_code == 2
    assert "there is no folder" in same.stderr or "is given for two outputs" in same.stderr
    same = runner.invoke(command, ["--one", str(tmp_path / "x"), "--two", str(tmp_path / "x"), "--force"])
    assert "is given for two outputs" in " ".join(same.stderr.split())
    other = runner.invoke(command, ["--one", str(tmp_path / "x"), "--two", str(tmp_path / "y")])
    assert other.stdout == "x y\n"


def test_errors_of_the_system_are_one_line(tmp_path, monkeypatch):
    def fail(self, path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(DagModule, "save", fail)
    result = run("convert", *MODEL, "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr == f"error: '{tmp_path}/out.safetensors': Permission denied\n"


def test_errors_of_the_system_without_a_file_are_one_line(tmp_path, monkeypatch):
    def fail(self, path, **_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(DagModule, "save", fail)
    result = run("convert", *MODEL, "-o", tmp_path / "out.safetensors")
    assert (result.exit_code, result.stderr) == (1, "error: the disk is gone\n")


def test_a_new_plugin_needs_its_folder(tmp_path):
    refused(run("new-plugin", "blur", "--directory", tmp_path / "nowhere"), "does not exist")
    assert list(tmp_path.iterdir()) == []


def test_a_new_plugin_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(path, _):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("torch_dag_core.cli.new_plugin.write_text", fail)
    result = run("new-plugin", "blur", "--directory", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.endswith("No space left on device\n")
    assert list(tmp_path.iterdir()) == []
