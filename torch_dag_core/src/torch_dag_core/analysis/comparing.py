"""Comparison of two models on the same inputs: how much their results differ, and where the difference begins."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.example_inputs import as_arguments
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import interpret
from torch_dag_core.graph.structure import pack
from torch_dag_core.graph.vertex import OutputVertex

_SEED = 0


@dataclass(frozen=True)
class Difference:
    """The difference between two values with the same name.

    Attributes:
        name: Name of a vertex, or path of a module; empty for the result of the model.
        absolute: The largest absolute difference of two elements; infinite if the shapes differ.
        relative: The same, divided by the largest absolute element of the first model's value.
    """

    name: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class Comparison:
    """The result of `compare_module_outputs`.

    Attributes:
        result: The difference between the results of the models.
        steps: The differences between intermediate values that both models have under the same name, in the order in
            which the second model computes them.
        tolerance: The relative difference above which a step counts as different.
    """

    result: Difference
    steps: tuple[Difference, ...]
    tolerance: float

    @property
    def absolute(self) -> float:
        """The largest absolute difference in the result."""
        return self.result.absolute

    @property
    def relative(self) -> float:
        """The largest absolute difference in the result, divided by its largest absolute element."""
        return self.result.relative

    @property
    def equal(self) -> bool:
        """Whether the results are equal bit for bit."""
        return self.result.absolute == 0.0

    @property
    def first(self) -> Difference | None:
        """The first step whose relative difference is above the tolerance; None if there is none."""
        return next((step for step in self.steps if not step.relative <= self.tolerance), None)

    def __str__(self) -> str:
        """Return one or two lines of text."""
        text = f"results differ by at most {self.absolute:.3g}, {self.relative:.3g} of the largest element"
        if self.first is None:
            return f"{text}; {len(self.steps)} values in between agree within {self.tolerance:g}"
        return f"{text}\nfirst beyond {self.tolerance:g}: {self.first.name!r}, by {self.first.relative:.3g}"


def compare_module_outputs(a: nn.Module, b: nn.Module, inputs: Any, *, tolerance: float = 1e-5) -> Comparison:
    """Run two models with equal seeds and compare their results and intermediate values.

    Values are matched by name: that of the vertex in a graph, the path of the submodule in other models (``path_1`` for
    its second call). The models run in the mode that they are in.

    Args:
        a: The reference.
        b: The model to judge.
        inputs: A tensor, a tuple of arguments, a dict of keyword arguments, or a pair of both.
        tolerance: The relative difference above which an intermediate value counts as different.
    """
    args, kwargs = as_arguments(inputs)
    expected = dict(_seeded_values(a, args, kwargs))
    steps = []
    result = Difference("", math.nan, math.nan)
    for name, value in _seeded_values(b, args, kwargs):
        if name in expected:
            difference = _difference(name, expected.pop(name), value)
            result = difference if not name else result
            steps += [difference] if name else []
    return Comparison(result, tuple(steps), tolerance)


def largest_difference(expected: Any, found: Any) -> float:
    """Return the largest difference of two results, relative to the largest element of the expected tensor.

    Args:
        expected: A tensor, or nested tuples, lists and dicts of tensors.
        found: The same.

    Returns:
        0 where both are equal; infinity where their shapes differ.
    """
    return _difference("", _tensors(expected), _tensors(found)).relative


def _seeded_values(model: nn.Module, args: Any, kwargs: Any) -> Iterator[tuple[str, list[Tensor]]]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(_SEED)
        if isinstance(model, DagModule):
            yield from _graph_values(model, args, kwargs)
        else:
            yield from _module_values(model, args, kwargs)


def _graph_values(dag: DagModule, args: Any, kwargs: Any) -> Iterator[tuple[str, list[Tensor]]]:
    for vertex, value in interpret(dag, *args, **kwargs):
        yield "" if isinstance(vertex, OutputVertex) else vertex.name, _tensors(value)


def _module_values(model: nn.Module, args: Any, kwargs: Any) -> Iterator[tuple[str, list[Tensor]]]:
    seen: list[tuple[str, list[Tensor]]] = []
    calls: Counter[str] = Counter()

    def hook(path: str) -> Any:
        def record(_: nn.Module, __: Any, value: Any) -> None:
            name = f"{path}_{calls[path]}" if calls[path] else path
            calls[path] += 1
            seen.append((name, [tensor.clone() for tensor in _tensors(value)]))

        return record

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules() if path]
    try:
        result = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    yield from seen
    yield "", _tensors(result)


def _tensors(value: Any) -> list[Tensor]:
    leaves: list[Tensor] = []
    pack(value, lambda item: isinstance(item, Tensor), leaves)
    return leaves


def _difference(name: str, expected: list[Tensor], actual: list[Tensor]) -> Difference:
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in actual]:
        return Difference(name, math.inf, math.inf)
    pairs = [_largest_differences(a, b) for a, b in zip(expected, actual, strict=True)]
    return Difference(name, max((p[0] for p in pairs), default=0.0), max((p[1] for p in pairs), default=0.0))


def _largest_differences(expected: Tensor, actual: Tensor) -> tuple[float, float]:
    """Return the largest absolute and relative difference of two tensors.

    Infinities of the same sign are equal, and so are two NaNs; a NaN differs infinitely from any number.
    """
    if not expected.numel():
        return 0.0, 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    expected, actual = expected.to(wide), actual.to(wide)
    same = (expected == actual) | (expected.isnan() & actual.isnan())
    absolute = float((expected - actual).abs().masked_fill(same, 0.0).max())
    if math.isnan(absolute):
        return math.inf, math.inf
    largest = float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return absolute, absolute / largest if largest else (0.0 if absolute == 0.0 else math.inf)
