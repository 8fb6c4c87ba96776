"""What a conversion leaves behind in memory."""

from __future__ import annotations

import gc

import torch
from torch import nn

from torch_dag_core import build_from_unstructured_module
from torch_dag_core.conversion.builder import Value
from torch_dag_core.tracing.recording import Entry, Recording


class _Scaled(nn.Module):
    """Computes with sizes, with constants, and with views of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width = x.shape
        scale = self.table.view(2, 2).float().sum()
        return (x * scale).view(batch * width)


def _traces() -> dict[int, object]:
    """Return by id what a conversion needs only until it ends; other tests may keep some for longer."""
    return {id(item): item for item in gc.get_objects() if issubclass(type(item), (Recording, Value, Entry))}


def test_recordings_are_freed_without_the_garbage_collector() -> None:
    """No reference cycle keeps recordings alive after the conversion."""
    model, x = _Scaled(), torch.randn(2, 4)
    gc.collect()
    gc.disable()
    try:
        before = _traces()
        dag = build_from_unstructured_module(model, x)
        kept = _traces().keys() - before.keys()
    finally:
        gc.enable()
    assert dag(x).shape == (8,)
    assert not kept
