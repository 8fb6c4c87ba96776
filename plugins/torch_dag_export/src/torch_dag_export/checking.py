"""The comparison of an exported model, loaded in its runtime, with the graph that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.analysis.comparing import largest_difference
from torch_dag_core.analysis.latency import median_latencies
from torch_dag_core.graph.nested import leaves
from torch_dag_core.graph.structure import pack
from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.report import OutputCheck
from torch_dag_export.subject import ExportSubject

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Relative difference that is accepted by default, by the precision of the graph."""
_SECONDS = 1.0
_SEED = 0


def default_tolerance(subject: ExportSubject) -> float:
    """Return the tolerance for the least precise floating-point numbers of a graph and its inputs."""
    tensors = (*subject.dag.parameters(), *subject.dag.buffers(), *subject.tensors)
    used = {tensor.dtype for tensor in tensors}
    return max((tolerance for dtype, tolerance in TOLERANCES.items() if dtype in used), default=1e-4)


def output_checks(subject: ExportSubject, used: ExportFormat, files: Sequence[Path]) -> tuple[OutputCheck, ...]:
    """Run the exported model and the graph on the same inputs, with equal seeds, and compare their outputs."""
    cases = subject.batches()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        expected = [_seeded(subject, case) for case in cases]
        found = used.run(subject, files, cases) if used.run else _run_loaded(used.load(subject, files), cases)
    return tuple(_check(*each) for each in zip(cases, expected, found, strict=True))


def _seeded(subject: ExportSubject, case: Sequence[Tensor]) -> list[Tensor]:
    torch.default_generator.manual_seed(_SEED)
    return tensors_in(subject.dag(*subject.arguments(case)))


def _run_loaded(runtime: Runtime, cases: Sequence[Sequence[Tensor]]) -> list[Any]:
    results = []
    for case in cases:
        torch.default_generator.manual_seed(_SEED)
        results.append(tensors_in(runtime(*case)))
    return results


def compare_outputs(first: nn.Module, second: nn.Module, *inputs: Any) -> OutputCheck:
    """Compare what two models compute, with equal seeds and without gradients; their modes stay as they are.

    Args:
        first: The model that the difference is measured against: a graph before it was quantized, for instance.
        second: The model that is compared with it.
        inputs: Arguments of one call of each.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        expected, found = _run_loaded(first, [inputs]), _run_loaded(second, [inputs])
    return _check(tensors_in(inputs), expected[0], found[0])


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors of a result, in the order in which its containers hold them."""
    found: list[Tensor] = []
    pack(value, lambda item: isinstance(item, Tensor), found)
    return found


def _check(case: Sequence[Tensor], expected: Any, found: Any) -> OutputCheck:
    shapes = tuple(tuple(tensor.shape) for tensor in case)
    return OutputCheck(shapes, largest_difference(expected, found), _same_argmax(leaves(expected), leaves(found)))


def _same_argmax(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float | None:
    """Return the share of rows whose largest element is at the same position in both results."""
    same = [
        (a.argmax(-1) == b.argmax(-1)).flatten()
        for a, b in zip(expected, found, strict=False)
        if a.is_floating_point() and a.dim() > 1 and a.numel() and a.shape == b.shape
    ]
    return float(torch.cat(same).float().mean()) if same else None


class _Called(nn.Module):
    """A callable of flat tensors as a module, which `median_latencies` can time."""

    def __init__(self, call: Runtime) -> None:
        super().__init__()
        self._call = call

    def forward(self, *tensors: Tensor) -> Any:
        """Return the result of the call."""
        return self._call(*tensors)


def latencies(subject: ExportSubject, used: ExportFormat, files: Sequence[Path]) -> tuple[float, float]:
    """Return the median times of one call of the graph and of the exported model, in seconds."""
    graph = _Called(lambda *tensors: subject.dag(*subject.arguments(tensors)))
    runtime = _Called(used.load(subject, files))
    first, second = median_latencies((graph, runtime), subject.tensors, seconds=_SECONDS)
    return first, second
