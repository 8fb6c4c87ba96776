"""Sizes that follow the inputs, stated over tensors that are still there.

When a vertex's operands vanish, its shape must come from elsewhere. The graph is run without data at two input sizes,
which shows the dimensions that are free and other vertices that have the same size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.dag import DagModule
from torch_dag_core.values import Size
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.stepping import Stepper, tensors_of

Shapes = dict[str, list[tuple[int, ...]]]


@dataclass
class FreeSizes:
    """Shapes of every value at two input sizes, and the type of each."""

    here: Shapes
    there: Shapes
    dtypes: dict[str, list[torch.dtype]]
    order: list[str]

    @classmethod
    def of(cls, dag: DagModule, inputs: Sequence[Tensor]) -> FreeSizes:
        """Run a copy of ``dag`` on the meta device at the sizes of ``inputs`` and at other ones."""
        bare = dag.clone().to("meta").eval()
        here, dtypes = _shapes(bare, inputs)
        there, _ = _shapes(bare, _resized(dag, inputs))
        return cls(here, there, dtypes, list(here))

    def is_free(self, name: str, dim: int) -> bool:
        """Tell whether a dimension of a vertex's only tensor follows the input sizes."""
        return self.here[name][0][dim] != self.there[name][0][dim]

    def stated(self, name: str, dim: int, candidates: Iterable[str]) -> tuple[str, Size]:
        """Return a vertex among ``candidates`` and its size that a free dimension equals.

        An equal dimension is taken before one that is a multiple; the last candidate before earlier ones.

        Raises:
            RemovalError: no candidate has a size from which this one follows.
        """
        target = self.here[name][0][dim], self.there[name][0][dim]
        multiple: tuple[str, Size] | None = None
        for candidate in reversed(list(candidates)):
            for place in range(len(self.here[candidate][0])):
                size = self._over(target, candidate, place)
                if size is not None and size == Size(((0, place),)):
                    return candidate, size
                multiple = multiple or (size and (candidate, size))
        if multiple is None:
            message = f"nothing is left of which {name!r} could take its size; keep a slot of an orbit that it reads"
            raise RemovalError(name, message)
        return multiple

    def _over(self, target: tuple[int, int], candidate: str, place: int) -> Size | None:
        here, there = self.here[candidate][0][place], self.there[candidate][0][place]
        if here == there or target[0] * there != target[1] * here:
            return None
        ratio = Fraction(target[0], here)
        return Size(((0, place),), ratio.numerator, ratio.denominator)


def _shapes(dag: DagModule, inputs: Sequence[Tensor]) -> tuple[Shapes, dict[str, list[torch.dtype]]]:
    tensors = [tensor.to("meta") for tensor in inputs]
    values: dict[str, list[Tensor]] = {v.name: [t] for v, t in zip(dag.input_vertices, tensors, strict=True)}
    values |= {vertex.name: tensors_of(value) for vertex, value in Stepper(dag, tensors).steps()}
    shapes = {name: [tuple(tensor.shape) for tensor in found] for name, found in values.items()}
    return shapes, {name: [tensor.dtype for tensor in found] for name, found in values.items()}


def _resized(dag: DagModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return inputs whose free dimensions are larger, each by another amount, by multiples of 32 beyond the first."""
    specs: list[Any] = list(dag.input_spec.tensors) or [None] * len(inputs)
    return [
        tensor.new_empty([_other(size, dim, spec) for dim, size in enumerate(tensor.shape)], device="meta")
        for tensor, spec in zip(inputs, specs, strict=True)
    ]


def _other(size: int, dim: int, spec: Any) -> int:
    free = dim == 0 if spec is None else spec.shape[dim] is None
    if not free:
        return size
    return size + 1 if dim == 0 else size + 32 * dim
