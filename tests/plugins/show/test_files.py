"""The files that pictures are written to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import torch_dag_core as td
from torch_dag_core.cli.app import app
from torch_dag_show import Picture, to_dot, to_html, to_model_explorer, to_svg


@pytest.fixture
def dag():
    block = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    return td.build_from_unstructured_module(nn.Sequential(block, nn.Linear(8, 4)), torch.randn(2, 8))


def content(page):
    (text,) = re.findall(r'<script type="application/json" id="graph">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_page_holds_the_graph_and_asks_for_nothing_else(dag):
    page = to_html(dag)
    assert len(content(page)["nodes"]) == len(dag) + 1
    assert not re.search(r"""\b(src|href)=(?!"data:,")""", page)
    assert "default-src 'none'" in page


def test_names_cannot_break_out_of_the_page(dag):
    evil = "</script><script>alert(1)</script>"
    dag.provenance["model"] = evil
    dag.rename(dag.inner_vertices[0], "<img/src=x/onerror=alert(1)>")
    page = to_html(dag)
    assert content(page)["title"] == evil
    assert evil not in page
    assert "<img" not in page


def test_two_pages_of_one_graph_are_equal(dag):
    assert to_html(dag) == to_html(dag.clone())


def test_dot_opens_each_group_once_and_closes_it(dag):
    text = to_dot(dag)
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"label=\"0\"", text)) == 1
    assert text.count(" -> ") == len(dag)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_the_file(dag):
    drawn = subprocess.run(["dot", "-Tsvg"], input=to_dot(dag), capture_output=True, text=True, check=True)
    assert drawn.stdout.count('<g id="node') == len(dag) + 1


def test_model_explorer_gets_edges_and_one_overlay_for_each_orbit(dag):
    (graph,) = json.loads(to_model_explorer(dag))["graphs"]
    ids = {node["id"] for node in graph["nodes"]}
    assert {edge["sourceNodeId"] for node in graph["nodes"] for edge in node["incomingEdges"]} <= ids
    assert {node["namespace"] for node in graph["nodes"]} == {"", "0"}
    (left,) = graph["tasksData"]["edgeOverlaysDataListLeftPane"]
    assert [overlay["name"] for overlay in left["overlays"]] == ["0.0.weight:0 (16 slots)", "0.2.weight:0 (8 slots)"]


def test_a_notebook_shows_the_page_in_a_frame(dag):
    shown = Picture(dag, height=300)._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert "height:300px" in shown


@pytest.mark.parametrize("suffix", [".html", ".dot", ".json", ".svg"])
def test_the_command_writes_the_file_that_its_ending_names(dag, tmp_path, suffix):
    dag.save(tmp_path / "model.safetensors")
    out = tmp_path / f"model{suffix}"
    result = CliRunner().invoke(app, ["show", str(tmp_path / "model.safetensors"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    written = {".html": to_html, ".dot": to_dot, ".json": to_model_explorer, ".svg": to_svg}[suffix]
    assert out.read_text(encoding="utf-8") == written(dag)


def show(*arguments):
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.mark.parametrize("write", [to_html, to_dot, to_svg])
def test_the_command_folds_modules(staged, tmp_path, write):
    staged.save(tmp_path / "model.safetensors")
    out = tmp_path / f"model.{write.__name__.removeprefix('to_')}"
    result = show(tmp_path / "model.safetensors", "--out", out, "--depth", 2)
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8") == write(staged, depth=2) != write(staged)


def test_the_command_refuses_a_depth_where_it_means_nothing(tmp_path):
    result = show("missing.safetensors", "--depth", 2)
    assert (result.exit_code, "--depth needs --out" in result.output) == (2, True)
    result = show("missing.safetensors", "--depth", 2, "--out", tmp_path / "a.json")
    assert result.exit_code == 2
    assert "a .json file cannot be drawn to a depth; leave --depth out" in " ".join(result.output.split())
    assert show("missing.safetensors", "--depth", 0, "--out", tmp_path / "a.svg").exit_code == 2


def test_a_page_refuses_a_depth_of_nothing(dag):
    with pytest.raises(td.InputError, match="depth must be None or an int of at least 1, not 0"):
        to_html(dag, depth=0)


def test_the_command_refuses_an_ending_that_nobody_writes(dag, tmp_path):
    dag.save(tmp_path / "model.safetensors")
    result = CliRunner().invoke(app, ["show", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "a.bmp")])
    assert result.exit_code == 2
    assert "no plugin writes '.bmp'; known endings: .html, .dot, .json" in " ".join(result.output.split())
