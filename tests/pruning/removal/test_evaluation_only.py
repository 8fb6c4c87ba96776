"""A graph that was converted for evaluation alone is cut like any other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core import build_from_unstructured_module
from torch_dag_core.errors import InputError
from torch_dag_core.serialization import load
from torch_dag_pruning import Cut, Plan, analyze


class Guarded(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        if self.training and not torch.isfinite(x).all():
            x = x.clamp(-1, 1)
        return self.last(x)


def test_cut_graphs_stay_in_evaluation(tmp_path):
    x = torch.randn(2, 3, 8, 8)
    dag = build_from_unstructured_module(Guarded(), x, modes="eval")
    analysis = analyze(dag)
    (orbit,) = analysis.orbits
    cut = Cut(analysis, Plan.keeping(analysis, {orbit.key: range(5)}))
    pruned = cut.removed()
    cut.prove(pruned)
    pruned.save(tmp_path / "pruned.safetensors")
    for graph in (cut.masked(), pruned, load(tmp_path / "pruned.safetensors")):
        torch.testing.assert_close(graph(x), cut.masked()(x))
        with pytest.raises(InputError, match="evaluation alone"):
            graph.train()(x)
