"""Sizes that depend on the inputs, expressed by tensors that remain after removal.

When operands of a vertex vanish, its shape must be read off other tensors. The graph is run without data at two input
sizes. A dimension that differs between the two depends on the inputs, and a vertex whose sizes determine it in both
runs can be read instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.values import Size
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.analysis.example_sizes import sized_runs
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.removal.stepping import tensors_of

Shapes = dict[str, list[tuple[int, ...]]]


@dataclass
class FreeSizes:
    """Shapes of all values at two input sizes, and their dtypes.

    Attributes:
        here: Shapes of the tensors of each vertex at the first input size.
        there: The same at the second.
        dtypes: Dtypes of the tensors of each vertex.
        order: Names of the vertices in order.
    """

    here: Shapes
    there: Shapes
    dtypes: dict[str, list[torch.dtype]]
    order: list[str]

    @classmethod
    def of(cls, dag: DagModule, inputs: Sequence[Tensor], registry: Registry) -> FreeSizes:
        """Run ``dag`` without data at the input sizes that the analysis uses."""
        runs = [values for _, values in sized_runs(dag, inputs, ShapeRun(registry))]
        tensors = [{vertex.name: tensors_of(value) for vertex, value in run.items()} for run in runs]
        here, there = (
            {name: [tuple(tensor.shape) for tensor in found] for name, found in run.items()}
            for run in (tensors[0], tensors[-1])
        )
        dtypes = {name: [tensor.dtype for tensor in found] for name, found in tensors[0].items()}
        return cls(here, there, dtypes, list(here))

    def is_free(self, name: str, dim: int) -> bool:
        """Return whether dimension ``dim`` of the first tensor of a vertex depends on the input sizes."""
        return self.here[name][0][dim] != self.there[name][0][dim]

    def stated(self, name: str, dim: int, candidates: Iterable[str]) -> tuple[str, Size]:
        """Express an input-dependent dimension by sizes of one of the candidates.

        A candidate with an equal dimension is preferred to one from which the size has to be computed, and a later
        candidate to an earlier one.

        Returns:
            The name of the candidate, and the size with the candidate as operand 0.

        Raises:
            RemovalError: no candidate determines the size.
        """
        target = _Pair(self.here[name][0][dim], self.there[name][0][dim])
        derived: tuple[str, Size] | None = None
        for candidate in reversed(list(candidates)):
            sizes = [_Pair(*pair) for pair in zip(self.here[candidate][0], self.there[candidate][0], strict=True)]
            if target in sizes:
                return candidate, Size(((0, sizes.index(target)),))
            size = None if derived else _over(target, sizes)
            derived = derived if size is None else (candidate, size)
        if derived is None:
            message = f"nothing is left of which {name!r} could take its size; keep a slot of an orbit that it reads"
            raise RemovalError(name, message)
        return derived


class _Pair(NamedTuple):
    """One dimension at the two input sizes."""

    here: int
    there: int


def _over(target: _Pair, sizes: Sequence[_Pair]) -> Size | None:
    """Return ``target`` as a fraction of a product of input-dependent sizes, or as one of them plus a constant.

    Returns None if neither holds at both input sizes.
    """
    free = [(dim, pair) for dim, pair in enumerate(sizes) if pair.here != pair.there]
    for count in range(1, len(free) + 1):
        for chosen in itertools.combinations(free, count):
            here, there = (math.prod(pair[run] for _, pair in chosen) for run in (0, 1))
            if target.here * there == target.there * here:
                ratio = Fraction(target.here, here)
                return Size(tuple((0, dim) for dim, _ in chosen), ratio.numerator, ratio.denominator)
    for dim, pair in free:
        if target.here - pair.here == target.there - pair.there:
            return Size(((0, dim),), add=target.here - pair.here)
    return None
