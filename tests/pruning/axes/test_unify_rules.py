"""Axes made one: canonical forms, products against products and concats, and why an axis is fixed."""

from __future__ import annotations

import pytest

from torch_dag_pruning.axes import Atom, Cause, Fixed, concat, product

WHY = Cause("v", "fn.reshape", "because")
OTHER = Cause("w", "fn.pool", "moves")


def test_find_returns_the_canonical_form(solver, shown):
    a, b, c = (solver.atom(4) for _ in range(3))
    whole = concat(a, b, c)
    solver.unify_all([a, b, c], WHY)
    assert shown(whole) == ["(3*a0:4)"]
    solver.freeze(b, WHY)
    assert solver.find(whole) == Fixed(12)


def test_one_slot_is_fixed(solver, shown, free):
    assert solver.atom(1) == Fixed(1)
    assert shown(*solver.cut(solver.atom(3), [1])) == ["1", "a1:2"]
    assert free() == [2]
    assert solver.reshape([solver.atom(4)], [1, 2, 2, 1], WHY)[::3] == [Fixed(1)] * 2


def test_atoms_keep_creation_order_and_names(solver, free):
    axes = [solver.atom(n, f"conv{n}") for n in (4, 6, 4)]
    solver.unify(axes[2], axes[0], WHY)
    solver.cut(axes[1], [2])
    assert free() == [4, 2, 4]
    assert [atom.name for atom in solver.atoms()] == ["conv4", "conv6", "conv6"]


def test_unify_products_peels_from_the_right(solver, shown):
    a, b, c, d = (solver.atom(n) for n in (4, 6, 2, 12))
    solver.unify(product(a, b), product(c, d), WHY)
    assert shown(a, d) == ["(a2:2*a5:2)", "(a5:2*a1:6)"]
    assert not solver.conflicts


def test_four_by_six_against_six_by_four_freezes_only_its_group(solver, free):
    outside = solver.atom(5), solver.atom(5)
    group = [solver.atom(n) for n in (4, 6, 6, 4)]
    solver.unify(product(outside[0], *group[:2]), product(outside[1], *group[2:]), WHY)
    assert [solver.find(axis) for axis in group] == [Fixed(n) for n in (4, 6, 6, 4)]
    assert free() == [5]
    (conflict,) = solver.conflicts
    assert conflict == Cause("v", "fn.reshape", "factors (4, 6) and (6, 4) do not divide each other")
    assert solver.find(group[0]).cause is conflict


def test_split_right_conflict_is_none_and_changes_nothing(solver, free):
    a, b = solver.atom(4), solver.atom(6)
    assert solver.split_right(product(a, b), 4, WHY) is None
    assert free() == [4, 6]
    with pytest.raises(ValueError, match="rows of 5"):
        solver.split_right(a, 5, WHY)


def test_split_right_ends(solver):
    a = solver.atom(4)
    assert solver.split_right(a, 4, WHY) == (Fixed(1), a)
    assert solver.split_right(a, 1, WHY) == (a, Fixed(1))


def test_swapped_concat_refines_to_fixed(solver, free):
    a, b = solver.atom(5), solver.atom(8)
    solver.unify(concat(a, b), concat(b, a), WHY)
    assert (solver.find(a), solver.find(b)) == (Fixed(5), Fixed(8))
    assert free() == []


def test_swapped_concat_keeps_the_common_divisor(solver, free):
    a, b = solver.atom(6), solver.atom(9)
    solver.unify(concat(a, b), concat(b, a), WHY)
    assert free() == [3]


def test_unify_concats_of_different_atoms(solver, free):
    a, b, c, d = (solver.atom(n) for n in (5, 8, 8, 5))
    solver.unify(concat(a, b), concat(c, d), WHY)
    assert sorted(free()) == [3, 5, 5]


def test_unify_concat_with_product(solver, shown):
    a, b, p, q = (solver.atom(n) for n in (6, 9, 5, 3))
    solver.unify(concat(a, b), product(p, q), WHY)
    assert shown(a, b, p) == ["(a4:2*a3:3)", "(a5:3*a3:3)", "[a4:2+a5:3]"]


def test_unify_refuses_other_sizes(solver):
    with pytest.raises(ValueError, match="cannot unify axes of 3 and 4"):
        solver.unify(solver.atom(3), solver.atom(4), WHY)


def test_unify_all(solver, free):
    solver.unify_all([], WHY)
    solver.unify_all([solver.atom(3) for _ in range(4)], WHY)
    assert free() == [3]


def test_held_expressions_are_refreshed(solver, shown):
    a, b = solver.atom(6), solver.atom(2)
    held = product(b, a)
    first, _ = solver.cut(a, [2])
    solver.unify(first, b, WHY)
    assert shown(held) == ["(a1:2*[a1:2+a3:4])"]


def test_the_first_cause_wins_and_the_root_cause_travels(solver):
    a, b, c = (solver.atom(4) for _ in range(3))
    solver.freeze(a, OTHER)
    solver.unify(b, a, WHY)
    solver.freeze(b, WHY)
    solver.unify(c, Fixed(4), WHY)
    causes = [solver.find(axis).cause for axis in (a, b, c)]
    assert causes == [OTHER, OTHER, WHY]


def test_freezing_reaches_every_atom_of_an_expression(solver):
    a, b, c = (solver.atom(n) for n in (2, 3, 4))
    solver.freeze(concat(product(a, b), c), WHY)
    assert solver.atoms() == []
    assert isinstance(a, Atom)
