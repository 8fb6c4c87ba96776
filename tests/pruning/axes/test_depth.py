"""Long chains and deep nests end, quickly, and without recursion that grows with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from torch_dag_pruning.axes import (
    Atom,
    Axis,
    AxisSolver,
    Cause,
    Concat,
    Fixed,
    atoms,
    concat,
    mask,
    product,
    size,
)

WHY = Cause("v", "op", "test")


@pytest.fixture(autouse=True)
def _shallow_stack() -> Iterator[None]:
    """Leave 150 frames beyond the test itself."""
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 150)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_long_chain_of_unify(backwards: bool) -> None:
    solver = AxisSolver()
    axes = [solver.atom(4) for _ in range(100_000)]
    links = range(len(axes) - 1)
    for i in reversed(links) if backwards else links:
        solver.unify(axes[i], axes[i + 1], WHY)
    assert solver.find(axes[-1]) == axes[0]
    assert solver.atoms() == [axes[0]]


def test_a_long_chain_of_bound_atoms_is_compressed() -> None:
    solver = AxisSolver()
    axes = [solver.atom(4) for _ in range(100_000)]
    solver.bound.update((atom.id, axes[i]) for i, atom in enumerate(axes[1:]) if isinstance(atom, Atom))
    assert solver.find(axes[-1]) == axes[0]
    assert set(map(id, solver.bound.values())) == {id(axes[0])}


def test_two_thousand_nested_cuts_of_one_atom() -> None:
    solver = AxisSolver()
    whole = solver.atom(10_000)
    rest = whole
    for _ in range(2000):
        rest = solver.cut(rest, [3], WHY)[1]
    assert solver.find(whole) == Fixed(10_000)


def test_two_thousand_nested_concats() -> None:
    solver = AxisSolver()
    whole = rest = solver.atom(10_000)
    for left in range(9995, 2, -5):
        grown = concat(solver.atom(5), following := solver.atom(left))
        solver.unify(rest, grown, WHY)
        rest = following
    found = solver.find(whole)
    assert isinstance(found, Concat)
    assert len(found.parts) == 2000


def test_deep_alternation_of_products_and_concats() -> None:
    solver = AxisSolver()
    axis: Axis = solver.atom(2)
    for _ in range(18):
        axis = concat(product(solver.atom(2), axis), solver.atom(3))
    axis = solver.find(axis)
    whole = {atom.id: atom.n for atom in solver.atoms()}
    assert size(axis, whole) == axis.n
    assert len(atoms(axis)) == 37
    assert str(axis).count("*") == 18
    solver.cut(axis, [axis.n // 3, axis.n // 2], WHY)
    assert solver.find(axis).n == axis.n


def test_reshape_rows_of_a_long_misaligned_concat() -> None:
    solver = AxisSolver()
    row = solver.atom(4)
    axis = concat(Fixed(1), product(Fixed(20_000), row), Fixed(3))
    outer, inner = solver.reshape([axis], [20_001, 4], WHY)
    assert (outer, inner) == (Fixed(20_001), Fixed(4))


def test_masks_of_wide_expressions() -> None:
    solver = AxisSolver()
    parts = [solver.atom(2) for _ in range(20_000)]
    axis = concat(*parts)
    masks = dict.fromkeys(range(20_000), torch.ones(2))
    assert mask(solver.find(axis), masks).numel() == 40_000


def test_growing_concatenation_of_a_dense_block() -> None:
    solver = AxisSolver()
    features = solver.atom(64)
    for _ in range(300):
        norm = solver.atom(features.n)
        solver.unify(norm, features, WHY)
        features = concat(norm, solver.atom(32))
    found = solver.find(features)
    assert isinstance(found, Concat)
    assert len(found.parts) == len(solver.atoms()) == 301


def test_a_wide_concat_against_a_shifted_one() -> None:
    solver = AxisSolver()
    left, right = ([solver.atom(4) for _ in range(3000)] for _ in range(2))
    solver.unify(concat(Fixed(2), *left), concat(*right, Fixed(2)), WHY)
    assert len(solver.atoms()) == 2 * 3000 - 1
    assert solver.find(right[0]).children[0] == Fixed(2)
