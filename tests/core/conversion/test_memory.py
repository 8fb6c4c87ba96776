"""What a conversion leaves behind in memory."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from torch_dag_core import build_from_unstructured_module
from torch_dag_core.conversion.builder import Value
from torch_dag_core.errors import TraceError
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


class _Watching(nn.Module):
    """Remembers the thresholds of the collector while it runs, and fails at last."""

    seen: tuple[int, int, int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).seen = gc.get_threshold()
        message = "no more"
        raise RuntimeError(message)


def test_full_collections_wait_for_the_conversion_and_come_again_after_a_failure() -> None:
    before = gc.get_threshold()
    with pytest.raises(TraceError, match="no more"):
        build_from_unstructured_module(_Watching(), torch.randn(2, 4))
    assert gc.get_threshold() == before
    assert _Watching.seen[:2] == before[:2]
    assert _Watching.seen[2] > 100 * before[2]
