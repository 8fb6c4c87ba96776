"""What a notebook shows of a graph."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree as ET

import pytest
import torch
from torch import nn

import torch_dag_core as td
from torch_dag_core.plugins.loading import reload_plugins


def drawn(shown):
    (encoded,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', shown)
    return ET.fromstring(base64.b64decode(encoded))


def test_a_small_graph_is_shown_whole(staged):
    shown = staged._repr_html_()
    names = [each.get("data-vertex") for each in drawn(shown).iter() if each.get("data-vertex")]
    assert names == [vertex.name for vertex in (*staged.vertices, *staged.output_vertices)]
    assert "folded" not in shown


def test_a_large_graph_is_folded_until_it_is_small(long_graph):
    shown = long_graph(40)._repr_html_()
    assert "folded" not in shown
    stages = nn.Sequential(*[nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh()) for _ in range(40)])
    shown = td.build_from_unstructured_module(stages, torch.randn(2, 8))._repr_html_()
    assert len([each for each in drawn(shown).iter() if each.get("data-module")]) == 40
    assert "40 modules are folded" in shown
    assert len(shown) < 60_000


def test_it_asks_for_nothing_and_runs_nothing(staged):
    shown = staged._repr_html_()
    assert not re.search(r"<script|https?:|\bon\w+=", shown)
    assert set(re.findall(r"https?:[^\"' ]*", ET.tostring(drawn(shown), encoding="unicode"))) == {
        "http://www.w3.org/2000/svg"
    }


@pytest.mark.parametrize("length", [200, 6_000])
def test_a_graph_that_is_too_large_is_told_in_words(length):
    dag = td.DagModule()
    value = dag.add_input("x")
    for index in range(length):
        value = dag.add_vertex(f"act{index}", nn.ReLU(), [value])
    dag.set_output(value)
    shown = dag._repr_html_()
    assert f"<pre>{length + 1} vertices" in shown
    assert "are too many to draw unasked; torch_dag_show.Picture(dag) draws them" in shown


def test_without_plugins_it_says_what_to_install(staged, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "")
    reload_plugins()
    try:
        shown = staged._repr_html_()
        assert "<pre>" in shown
        assert "pip install torch-dag-show" in shown
        assert "installed, but left out" in shown
        with pytest.raises(td.PluginLoadError, match=r"no plugin writes '\.svg'; known endings: none; pip install"):
            staged.to_svg()
    finally:
        monkeypatch.undo()
        reload_plugins()


def test_an_error_is_told_instead_of_raised(staged, monkeypatch):
    def fail(_):
        message = "<broken>"
        raise RuntimeError(message)

    monkeypatch.setattr("torch_dag_show.notebook.scene_of", lambda *_, **__: fail(None))
    assert "there is no picture: RuntimeError: &lt;broken&gt;" in staged._repr_html_()
    monkeypatch.setattr(td.DagModule, "summary", fail)
    assert "<pre>&lt;torch_dag_core.graph.dag.DagModule object" in staged._repr_html_()
