"""Sizes that follow the inputs, stated over tensors that are still there.

When a vertex's operands vanish, its shape must come from elsewhere. The graph is run without data at two input sizes,
which shows the dimensions that are free and other vertices that have the same size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from torch_dag_core.dag import DagModule
from torch_dag_core.registry import Registry
from torch_dag_core.values import Size
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.shapes import ShapeRun, hints
from torch_dag_pruning.stepping import tensors_of

Shapes = dict[str, list[tuple[int, ...]]]


@dataclass
class FreeSizes:
    """Shapes of every value at two input sizes, and the type of each."""

    here: Shapes
    there: Shapes
    dtypes: dict[str, list[torch.dtype]]
    order: list[str]

    @classmethod
    def of(cls, dag: DagModule, inputs: Sequence[Tensor], registry: Registry) -> FreeSizes:
        """Run ``dag`` without data at the sizes that an analysis looks at; the order of its vertices is remembered."""
        runs = [ShapeRun(dag, registry).run(tensors) for tensors in hints(dag, inputs)]
        tensors = [{vertex.name: tensors_of(value) for vertex, value in run.items()} for run in runs]
        here, there = (
            {name: [tuple(tensor.shape) for tensor in found] for name, found in run.items()}
            for run in (tensors[0], tensors[-1])
        )
        dtypes = {name: [tensor.dtype for tensor in found] for name, found in tensors[0].items()}
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
