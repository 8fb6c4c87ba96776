"""Cuts of an axis, and what becomes of one that is cut too often."""

from __future__ import annotations

import pytest

from torch_dag_pruning.axes import Cause, Fixed, concat, product

WHY = Cause("v", "fn.reshape", "because")


def test_cut_an_atom_n_ways_at_once(solver, shown):
    a = solver.atom(9)
    pieces = solver.cut(a, [2, 5])
    assert shown(*pieces) == ["a1:2", "a2:3", "a3:4"]
    assert solver.find(a) == concat(*pieces)


def test_cut_a_concat_at_and_inside_parts(solver, shown):
    a, b = solver.atom(4), solver.atom(6)
    pieces = solver.cut(concat(a, b), [2, 4, 7])
    assert shown(*pieces) == ["a2:2", "a3:2", "a4:3", "a5:3"]


def test_cut_a_product_at_a_row(solver, shown):
    a, b = solver.atom(4), solver.atom(3)
    pieces = solver.cut(product(a, b), [6])
    assert shown(*pieces) == ["(a2:2*a1:3)", "(a3:2*a1:3)"]


def test_cut_inside_a_row_fixes_one_outer_slot(solver, shown):
    a, b = solver.atom(5), solver.atom(4)
    pieces = solver.cut(product(a, b), [2 * 4 + 2])
    assert shown(a, b) == ["[a4:2+1+a5:2]", "[a2:2+a3:2]"]
    assert shown(*pieces) == [
        "[(a4:2*[a2:2+a3:2])+a2:2]",
        "[a3:2+(a5:2*[a2:2+a3:2])]",
    ]


def test_cut_of_fixed_copies_is_free(solver, shown):
    a = solver.atom(4)
    assert shown(*solver.cut(product(Fixed(3), a), [4])) == ["a0:4", "(2*a0:4)"]


def test_cut_of_an_atom_that_occurs_twice(solver, shown):
    a, b = solver.atom(6), solver.atom(2)
    pieces = solver.cut(concat(a, b, a), [2, 11])
    assert shown(a) == ["[a2:2+1+a4:3]"]
    assert shown(*pieces) == ["a2:2", "[1+a4:3+a1:2+a2:2+1]", "a4:3"]


def test_cut_offsets(solver):
    a = solver.atom(4)
    assert [piece.n for piece in solver.cut(a, [0, 2, 2, 4])] == [0, 2, 0, 2, 0]
    assert solver.cut(a, []) == [solver.find(a)]
    for offsets in ([3, 1], [5], [-1]):
        with pytest.raises(ValueError, match="do not ascend"):
            solver.cut(a, offsets)


def test_too_many_fragments_freeze_the_whole_atom(solver):
    a, bystander = solver.atom(1024), solver.atom(8)
    pieces = solver.cut(a, range(2, 1024, 2), WHY)
    assert len(pieces) == 512
    assert solver.find(a) == Fixed(1024)
    assert solver.find(a).cause == Cause("v", "fn.reshape", "too fragmented")
    assert solver.atoms() == [bystander]


def test_fragments_add_up_over_cuts(solver, free):
    a = solver.atom(4000)
    rest = a
    for _ in range(254):
        rest = solver.cut(rest, [3], WHY)[1]
    assert len(free()) == 255
    for _ in range(3):
        rest = solver.cut(rest, [3], WHY)[1]
    assert free() == []
