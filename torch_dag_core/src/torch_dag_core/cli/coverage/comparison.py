"""The difference between a model and its graph, in both modes and at several batch sizes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.analysis.comparing import largest_difference
from torch_dag_core.conversion.example_inputs import ExampleInputs
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.discovery import one_line

CLOSE = 1e-5
"""Largest accepted difference, relative to the largest element of the source's result."""
DOUBLE_CLOSE = 1e-9
"""The same in double precision, in which larger differences are looked at again."""
_BATCHES = (3, 1)
"""Batch sizes, in the order in which they are compared: batch norms refuse a single sample in training."""
_SEED = 1
REFUSED = "source refuses"


def takes_any_batch(dag: DagModule) -> bool:
    """Tell whether a graph has a free batch size."""
    return all(spec.shape[:1] in ((), (None,)) for spec in dag.input_spec.tensors)


def batch_sizes(dag: DagModule, example: ExampleInputs) -> tuple[int, ...]:
    """Return the batch sizes at which a graph is examined: that of the example where it takes no other."""
    return _BATCHES if takes_any_batch(dag) else (example.batch,)


def batch_of(example: ExampleInputs, samples: int) -> list[Tensor]:
    """Return tensors of another batch size: random where numbers are real, repeated samples of the example elsewhere.

    Tensors whose first size is not that of the batch are the example's own.
    """
    tensors = []
    for tensor in example.tensors:
        if tensor.dim() == 0 or tensor.shape[0] != example.batch:
            tensors.append(tensor)
        elif tensor.is_floating_point():
            tensors.append(torch.randn(samples, *tensor.shape[1:], dtype=tensor.dtype))
        else:
            tensors.append(tensor[torch.arange(samples) % tensor.shape[0]])
    return tensors


def differences(model: nn.Module, dag: DagModule, example: ExampleInputs) -> dict[str, float | str]:
    """Return the largest relative difference of the results by mode and batch size, as ``evaluation_3``.

    A graph of evaluation alone is compared in evaluation. In training the buffers are compared as well, after the call.
    Where the source itself raises an error, the value is the text `REFUSED`; where the graph alone does, the text of
    its error.
    """
    found: dict[str, float | str] = {}
    for mode, twins in _modes(model, dag):
        for samples in batch_sizes(dag, example):
            found[f"{mode}_{samples}"] = _difference(twins, example, batch_of(example, samples))
    return found


def in_double_precision(
    model: nn.Module, dag: DagModule, example: ExampleInputs, single: Mapping[str, float | str]
) -> dict[str, float | str]:
    """Repeat the comparisons whose single-precision difference is above `CLOSE`, to tell errors from rounding."""
    far = [name for name, value in single.items() if not isinstance(value, str) and not value <= CLOSE]
    if not far:
        return {}
    found = {}
    for mode, twins in _modes(copy.deepcopy(model).double(), dag.clone().double()):
        for samples in batch_sizes(dag, example):
            if f"{mode}_{samples}" in far:
                tensors = [t.double() if t.is_floating_point() else t for t in batch_of(example, samples)]
                found[f"{mode}_{samples}"] = _difference(twins, example, tensors)
    return found


def _modes(model: nn.Module, dag: DagModule) -> Iterator[tuple[str, tuple[nn.Module, DagModule]]]:
    yield "evaluation", (model, dag)
    if not dag.input_spec.evaluation_only:
        yield "training", (copy.deepcopy(model).train(), dag.clone().train())


def _difference(
    twins: tuple[nn.Module, DagModule], example: ExampleInputs, tensors: Sequence[Tensor]
) -> float | str:  # fmt: skip
    model, dag = twins
    try:
        expected = _outcome(model, example, tensors)
    except Exception:  # noqa: BLE001 - a model may refuse a batch size for whatever reason
        return REFUSED
    try:
        result, buffers = _outcome(dag, example, tensors)
    except Exception as error:  # noqa: BLE001 - one batch size that fails is no reason to leave out the others
        return one_line(error)
    shared = [name for name in buffers if name in expected[1] and model.training]
    return max(
        largest_difference(expected[0], result),
        *(largest_difference(expected[1][name], buffers[name]) for name in shared),
        0.0,
    )


def _outcome(module: nn.Module, example: ExampleInputs, tensors: Sequence[Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Return the results of a seeded call, and the buffers after it."""
    torch.manual_seed(_SEED)
    args, kwargs = example.call_arguments([tensor.clone() for tensor in tensors])
    with torch.no_grad():
        result = module(*args, **kwargs)
    return result, dict(module.named_buffers())


def too_far(single: Mapping[str, float | str], double: Mapping[str, float | str]) -> str:
    """Return a sentence about the comparisons that neither precision explains by rounding; empty if none is left."""
    said = {
        name: value if isinstance(value, str) else f"differs by {value:.1e} of the largest element"
        for name, value in single.items()
        if not _is_close(value, double.get(name, REFUSED))
    }
    return "; ".join(f"{name.replace('_', ', batch ')}: {text}" for name, text in said.items())


def _is_close(single: float | str, double: float | str) -> bool:
    if isinstance(single, str):
        return single == REFUSED
    return single <= CLOSE or (not isinstance(double, str) and double <= DOUBLE_CLOSE)
