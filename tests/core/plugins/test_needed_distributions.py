"""A file that was saved is said to need the distributions whose ops are in it, and no others."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app

SOURCE = """
from torch_dag_core.plugins.codecs import ModuleCodec

class Double(nn.Module):
    def forward(self, x):
        return x + x

def net():
    return nn.Sequential(nn.Linear(4, 4), Double())

def plain():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())

@hookimpl
def torch_dag_ops():
    return [OpSpec(key="art.double", target=Double, codec=ModuleCodec(Double))]
"""


@pytest.fixture
def convert(site, tmp_path, monkeypatch):
    site.install("art", SOURCE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, ["convert", *arguments, "--size", "4", "--out", "net.safetensors", "--force"])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_what_is_needed_is_named(convert):
    said = convert("sample_module_art:net")
    assert "to load it, without the model's source, but with sample-art installed (pip install sample-art):" in said
    assert json.loads(convert("sample_module_art:net", "--json"))["needs"] == ["sample-art"]


def test_nothing_else_is_named(convert):
    assert "to load it, with neither the model's source nor its plugins:" in convert("sample_module_art:plain")
    assert json.loads(convert("sample_module_art:plain", "--json"))["needs"] == []
