"""Readings of a solved axis that do not depend on how it is spelled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from torch_dag_pruning.axes import Atom, Axis, AxisSolver, Concat, Fixed, Product, mask

Slot = tuple[tuple[int, int], ...]


def _random_masks(solver: AxisSolver) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(len(solver.bound))
    return {atom.id: torch.rand(atom.n, generator=generator, dtype=torch.float64) + 0.5 for atom in solver.atoms()}


def _soft(solver: AxisSolver, axes: Sequence[Axis]) -> Tensor:
    """Return the mask of a whole tensor, flattened: the outer product over its axes."""
    masks = _random_masks(solver)
    vectors = [mask(solver.find(axis), masks).double() for axis in axes]
    return functools.reduce(lambda a, b: (a[:, None] * b).flatten(), vectors)


def _slots(axis: Axis) -> list[Slot]:
    """Return the variables (atom, position) that each slot is a product of, outermost first."""
    match axis:
        case Fixed(n):
            return [()] * n
        case Atom(id, n):
            return [((id, i),) for i in range(n)]
        case Product(factors):
            rows = [_slots(factor) for factor in factors]
            return functools.reduce(lambda a, b: [x + y for x in a for y in b], rows)
        case Concat(parts):
            return [slot for part in parts for slot in _slots(part)]


def _partition(solver: AxisSolver, axes: Sequence[Axis]) -> list[Slot]:
    """Return the slots of all axes with variables numbered by first appearance."""
    number: dict[tuple[int, int], tuple[int, int]] = {}
    slots = (slot for axis in axes for slot in _slots(solver.find(axis)))
    return [tuple(number.setdefault(v, (len(number), 0)) for v in slot) for slot in slots]


@pytest.fixture(scope="session")
def soft() -> Callable[[AxisSolver, Sequence[Axis]], Tensor]:
    """Return the soft mask of a tensor under random masks on the free atoms."""
    return _soft


@pytest.fixture(scope="session")
def partition() -> Callable[[AxisSolver, Sequence[Axis]], list[Slot]]:
    """Return the meaning of a list of axes, up to the naming of atoms."""
    return _partition


@pytest.fixture
def solver() -> AxisSolver:
    """An empty solver."""
    return AxisSolver()


@pytest.fixture
def free(solver: AxisSolver) -> Callable[[], list[int]]:
    """Return a function that lists the sizes of the free atoms."""
    return lambda: [atom.n for atom in solver.atoms()]


@pytest.fixture
def shown(solver: AxisSolver) -> Callable[..., list[str]]:
    """Return a function that spells solved axes."""
    return lambda *axes: [str(solver.find(axis)) for axis in axes]
