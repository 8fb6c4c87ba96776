"""A reshape is positional: its factors are split, moved and merged, and what does not fit is frozen."""

from __future__ import annotations

import pytest

from torch_dag_pruning.axes import AxisSolver, Cause, Fixed, concat, product

WHY = Cause("v", "fn.reshape", "because")
OTHER = Cause("w", "fn.pool", "moves")


def test_reshape_splits_and_merges(solver, shown):
    qkv = solver.atom(3 * 4 * 8)
    three, heads, width = solver.reshape([qkv], [3, 4, 8], WHY)
    solver.freeze(three, WHY)
    assert shown(qkv, heads, width) == ["(3*a4:4*a2:8)", "a4:4", "a2:8"]
    (back,) = solver.reshape([three, heads, width], [96], WHY)
    assert back == solver.find(qkv)


def test_reshape_moves_a_straddling_factor(solver, shown):
    a, b = solver.atom(4), solver.atom(6)
    out = solver.reshape([a, b], [2, 12], WHY)
    assert shown(*out, a) == ["a2:2", "(a3:2*a1:6)", "(a2:2*a3:2)"]


def test_reshape_with_everything_eight_matches_by_position(solver, shown):
    batch, height, width = (solver.fixed(8) for _ in range(3))
    channels = solver.atom(8)
    assert shown(*solver.reshape([batch, channels, height, width], [8, 8, 64], WHY)) == [
        "8",
        "a0:8",
        "64",
    ]
    assert shown(*solver.reshape([batch, height, width, channels], [64, 8, 8], WHY)) == [
        "64",
        "8",
        "a0:8",
    ]
    assert shown(*solver.reshape([batch, channels, height], [64, 8], WHY)) == [
        "(8*a0:8)",
        "8",
    ]


def test_reshape_of_neighbouring_fixed_axes_is_free(solver, shown):
    channels = solver.atom(5)
    out = solver.reshape([Fixed(4), Fixed(6), channels], [6, 4, 5], WHY)
    assert shown(*out) == ["6", "4", "a0:5"]
    assert not solver.conflicts


def test_reshape_to_and_from_no_axes(solver):
    assert solver.reshape([], [1, 1], WHY) == [Fixed(1), Fixed(1)]
    assert solver.reshape([Fixed(1)], [], WHY) == []


def test_reshape_without_elements_freezes(solver):
    channels = solver.atom(4)
    assert solver.reshape([Fixed(0), channels], [4, 0], WHY) == [Fixed(4), Fixed(0)]
    assert solver.find(channels) == Fixed(4)


def test_reshape_refuses_other_sizes(solver):
    with pytest.raises(ValueError, match=r"cannot reshape \[6\] into \[4, 2\]"):
        solver.reshape([solver.atom(6)], [4, 2], WHY)


def test_reshape_conflict_freezes_only_its_group(solver, shown):
    a, b, c = solver.atom(4), solver.atom(6), solver.atom(7)
    out = solver.reshape([a, b, c], [6, 4, 7], WHY)
    assert shown(*out, a, b) == ["6", "4", "a2:7", "4", "6"]


def test_heads_of_a_concat(solver, shown):
    h1, h2, d = solver.atom(2), solver.atom(3), solver.atom(4)
    outer, inner = solver.reshape([concat(product(h1, d), product(h2, d))], [5, 4], WHY)
    assert shown(outer, inner) == ["[a0:2+a1:3]", "a2:4"]


def test_concat_of_heads_with_different_dims_ties_them(solver, shown):
    h1, h2, d1, d2 = (solver.atom(n) for n in (2, 3, 4, 4))
    outer, inner = solver.reshape([concat(product(h1, d1), product(h2, d2))], [5, 4], WHY)
    assert shown(outer, inner) == ["[a0:2+a1:3]", "a2:4"]
    assert solver.find(d2) == solver.find(d1)


def test_groups_over_two_concatenated_atoms(solver, shown):
    a, b = solver.atom(64), solver.atom(96)
    groups, width = solver.reshape([concat(a, b)], [32, 5], WHY)
    # Row 12 holds the last four slots of a and the first of b, which is single, so Fixed.
    assert shown(groups, width) == ["[a5:12+1+a7:19]", "[a3:4+1]"]


def test_unet_cat_into_groups(solver, free):
    left = product(solver.atom(32), solver.atom(10))
    right = product(solver.atom(32), solver.atom(20))
    groups, width = solver.reshape([concat(left, right)], [32, 30], WHY)
    assert (groups.n, width.n) == (32, 30)
    ten = next(atom for atom in solver.atoms() if atom.id == 1)
    assert width == product(Fixed(3), ten)
    assert solver.find(right) == product(Fixed(64), ten)
    # Besides it only the ten groups that lie whole in the left part may go, group by group.
    assert free() == [10, 10]


def test_split_of_a_fixed_and_free_concat(solver, shown):
    a = solver.atom(8)
    outer, inner = solver.split_right(concat(a, Fixed(8, OTHER)), 4, WHY) or (None, None)
    assert inner == Fixed(4)
    assert shown(outer, a) == ["[a1:2+2]", "(a1:2*4)"]


def test_two_hint_sizes_tell_a_scramble_from_the_identity():
    def scrambled(n: int) -> bool:
        solver = AxisSolver()
        channels = solver.atom(8)
        solver.reshape([Fixed(2), channels, Fixed(n)], [2, n, 8], WHY)
        return isinstance(solver.find(channels), Fixed)

    assert [scrambled(n) for n in (8, 9)] == [False, True]
