"""A plugin that offers a device to measure on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.errors import LatencyError
from torch_dag_pruning.latency.latency import Latency
from torch_dag_pruning.latency.providers import provider_named

SOURCE = """
class Board:
    name, device = "board", "a board on the desk"

    def measure(self, module, inputs):
        return 1e-3 * sum(parameter.numel() for parameter in module.parameters())

@hookimpl(optionalhook=True)
def torch_dag_latency():
    return [Board()]
"""


def test_hook_latency(site):
    site.install("art", SOURCE)
    dag = build_from_unstructured_module(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.ones(2, 4))
    analysis = analyze(dag)
    assert provider_named("board").device == "a board on the desk"
    latency = Latency(on="board", multiple=1).of(analysis)
    assert latency({}) == pytest.approx(44)
    assert latency({analysis.orbits[0].atom.id: 3}) == pytest.approx(15 + 8)


def test_other_devices_are_refused_by_name(site):
    site.install("art", SOURCE)
    with pytest.raises(LatencyError, match="no device 'phone' to measure on; there are board, cpu"):
        Latency(on="phone")
