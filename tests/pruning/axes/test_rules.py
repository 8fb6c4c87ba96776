"""One or more examples for each rule of the algebra."""

from __future__ import annotations

import pytest

from torch_dag_pruning.axes import Atom, Axis, AxisSolver, Cause, Fixed, concat, product

WHY = Cause("v", "fn.reshape", "because")
OTHER = Cause("w", "fn.pool", "moves")


@pytest.fixture
def solver() -> AxisSolver:
    return AxisSolver()


def free(solver: AxisSolver) -> list[int]:
    """Return the sizes of the free atoms."""
    return [atom.n for atom in solver.atoms()]


def shown(solver: AxisSolver, *axes: Axis) -> list[str]:
    return [str(solver.find(axis)) for axis in axes]


# 1 and 2: canonical form, size 1


def test_find_returns_the_canonical_form(solver: AxisSolver) -> None:
    a, b, c = (solver.atom(4) for _ in range(3))
    whole = concat(a, b, c)
    solver.unify_all([a, b, c], WHY)
    assert shown(solver, whole) == ["(3*a0:4)"]
    solver.freeze(b, WHY)
    assert solver.find(whole) == Fixed(12)


def test_one_slot_is_fixed(solver: AxisSolver) -> None:
    assert solver.atom(1) == Fixed(1)
    assert shown(solver, *solver.cut(solver.atom(3), [1])) == ["1", "a1:2"]
    assert free(solver) == [2]
    assert solver.reshape([solver.atom(4)], [1, 2, 2, 1], WHY)[::3] == [Fixed(1)] * 2


def test_atoms_keep_creation_order_and_names(solver: AxisSolver) -> None:
    axes = [solver.atom(n, f"conv{n}") for n in (4, 6, 4)]
    solver.unify(axes[2], axes[0], WHY)
    solver.cut(axes[1], [2])
    assert free(solver) == [4, 2, 4]
    assert [atom.name for atom in solver.atoms()] == ["conv4", "conv6", "conv6"]


# 3: reshape is positional


def test_reshape_splits_and_merges(solver: AxisSolver) -> None:
    qkv = solver.atom(3 * 4 * 8)
    three, heads, width = solver.reshape([qkv], [3, 4, 8], WHY)
    solver.freeze(three, WHY)
    assert shown(solver, qkv, heads, width) == ["(3*a4:4*a2:8)", "a4:4", "a2:8"]
    (back,) = solver.reshape([three, heads, width], [96], WHY)
    assert back == solver.find(qkv)


def test_reshape_moves_a_straddling_factor(solver: AxisSolver) -> None:
    a, b = solver.atom(4), solver.atom(6)
    out = solver.reshape([a, b], [2, 12], WHY)
    assert shown(solver, *out, a) == ["a2:2", "(a3:2*a1:6)", "(a2:2*a3:2)"]


def test_reshape_with_everything_eight_matches_by_position(solver: AxisSolver) -> None:
    batch, height, width = (solver.fixed(8) for _ in range(3))
    channels = solver.atom(8)
    assert shown(solver, *solver.reshape([batch, channels, height, width], [8, 8, 64], WHY)) == [
        "8",
        "a0:8",
        "64",
    ]
    assert shown(solver, *solver.reshape([batch, height, width, channels], [64, 8, 8], WHY)) == [
        "64",
        "8",
        "a0:8",
    ]
    assert shown(solver, *solver.reshape([batch, channels, height], [64, 8], WHY)) == [
        "(8*a0:8)",
        "8",
    ]


def test_reshape_of_neighbouring_fixed_axes_is_free(solver: AxisSolver) -> None:
    channels = solver.atom(5)
    out = solver.reshape([Fixed(4), Fixed(6), channels], [6, 4, 5], WHY)
    assert shown(solver, *out) == ["6", "4", "a0:5"]
    assert not solver.conflicts


def test_reshape_to_and_from_no_axes(solver: AxisSolver) -> None:
    assert solver.reshape([], [1, 1], WHY) == [Fixed(1), Fixed(1)]
    assert solver.reshape([Fixed(1)], [], WHY) == []


def test_reshape_without_elements_freezes(solver: AxisSolver) -> None:
    channels = solver.atom(4)
    assert solver.reshape([Fixed(0), channels], [4, 0], WHY) == [Fixed(4), Fixed(0)]
    assert solver.find(channels) == Fixed(4)


def test_reshape_refuses_other_sizes(solver: AxisSolver) -> None:
    with pytest.raises(ValueError, match=r"cannot reshape \[6\] into \[4, 2\]"):
        solver.reshape([solver.atom(6)], [4, 2], WHY)


# 4: concat in a reshape


def test_heads_of_a_concat(solver: AxisSolver) -> None:
    h1, h2, d = solver.atom(2), solver.atom(3), solver.atom(4)
    outer, inner = solver.reshape([concat(product(h1, d), product(h2, d))], [5, 4], WHY)
    assert shown(solver, outer, inner) == ["[a0:2+a1:3]", "a2:4"]


def test_concat_of_heads_with_different_dims_ties_them(solver: AxisSolver) -> None:
    h1, h2, d1, d2 = (solver.atom(n) for n in (2, 3, 4, 4))
    outer, inner = solver.reshape([concat(product(h1, d1), product(h2, d2))], [5, 4], WHY)
    assert shown(solver, outer, inner) == ["[a0:2+a1:3]", "a2:4"]
    assert solver.find(d2) == solver.find(d1)


def test_groups_over_two_concatenated_atoms(solver: AxisSolver) -> None:
    a, b = solver.atom(64), solver.atom(96)
    groups, width = solver.reshape([concat(a, b)], [32, 5], WHY)
    # Row 12 holds the last four slots of a and the first of b, which is single, so Fixed.
    assert shown(solver, groups, width) == ["[a5:12+1+a7:19]", "[a3:4+1]"]


def test_unet_cat_into_groups(solver: AxisSolver) -> None:
    left = product(solver.atom(32), solver.atom(10))
    right = product(solver.atom(32), solver.atom(20))
    groups, width = solver.reshape([concat(left, right)], [32, 30], WHY)
    assert (groups.n, width.n) == (32, 30)
    ten = next(atom for atom in solver.atoms() if atom.id == 1)
    assert width == product(Fixed(3), ten)
    assert solver.find(right) == product(Fixed(64), ten)
    # Besides it only the ten groups that lie whole in the left part may go, group by group.
    assert free(solver) == [10, 10]


def test_split_of_a_fixed_and_free_concat(solver: AxisSolver) -> None:
    a = solver.atom(8)
    outer, inner = solver.split_right(concat(a, Fixed(8, OTHER)), 4, WHY) or (None, None)
    assert inner == Fixed(4)
    assert shown(solver, outer, a) == ["[a1:2+2]", "(a1:2*4)"]


# 5: cut


def test_cut_an_atom_n_ways_at_once(solver: AxisSolver) -> None:
    a = solver.atom(9)
    pieces = solver.cut(a, [2, 5])
    assert shown(solver, *pieces) == ["a1:2", "a2:3", "a3:4"]
    assert solver.find(a) == concat(*pieces)


def test_cut_a_concat_at_and_inside_parts(solver: AxisSolver) -> None:
    a, b = solver.atom(4), solver.atom(6)
    pieces = solver.cut(concat(a, b), [2, 4, 7])
    assert shown(solver, *pieces) == ["a2:2", "a3:2", "a4:3", "a5:3"]


def test_cut_a_product_at_a_row(solver: AxisSolver) -> None:
    a, b = solver.atom(4), solver.atom(3)
    pieces = solver.cut(product(a, b), [6])
    assert shown(solver, *pieces) == ["(a2:2*a1:3)", "(a3:2*a1:3)"]


def test_cut_inside_a_row_fixes_one_outer_slot(solver: AxisSolver) -> None:
    a, b = solver.atom(5), solver.atom(4)
    pieces = solver.cut(product(a, b), [2 * 4 + 2])
    assert shown(solver, a, b) == ["[a4:2+1+a5:2]", "[a2:2+a3:2]"]
    assert shown(solver, *pieces) == [
        "[(a4:2*[a2:2+a3:2])+a2:2]",
        "[a3:2+(a5:2*[a2:2+a3:2])]",
    ]


def test_cut_of_fixed_copies_is_free(solver: AxisSolver) -> None:
    a = solver.atom(4)
    assert shown(solver, *solver.cut(product(Fixed(3), a), [4])) == ["a0:4", "(2*a0:4)"]


def test_cut_of_an_atom_that_occurs_twice(solver: AxisSolver) -> None:
    a, b = solver.atom(6), solver.atom(2)
    pieces = solver.cut(concat(a, b, a), [2, 11])
    assert shown(solver, a) == ["[a2:2+1+a4:3]"]
    assert shown(solver, *pieces) == ["a2:2", "[1+a4:3+a1:2+a2:2+1]", "a4:3"]


def test_cut_offsets(solver: AxisSolver) -> None:
    a = solver.atom(4)
    assert [piece.n for piece in solver.cut(a, [0, 2, 2, 4])] == [0, 2, 0, 2, 0]
    assert solver.cut(a, []) == [solver.find(a)]
    for offsets in ([3, 1], [5], [-1]):
        with pytest.raises(ValueError, match="do not ascend"):
            solver.cut(a, offsets)


# 6: product against product


def test_unify_products_peels_from_the_right(solver: AxisSolver) -> None:
    a, b, c, d = (solver.atom(n) for n in (4, 6, 2, 12))
    solver.unify(product(a, b), product(c, d), WHY)
    assert shown(solver, a, d) == ["(a2:2*a5:2)", "(a5:2*a1:6)"]
    assert not solver.conflicts


def test_four_by_six_against_six_by_four_freezes_only_its_group(solver: AxisSolver) -> None:
    outside = solver.atom(5), solver.atom(5)
    group = [solver.atom(n) for n in (4, 6, 6, 4)]
    solver.unify(product(outside[0], *group[:2]), product(outside[1], *group[2:]), WHY)
    assert [solver.find(axis) for axis in group] == [Fixed(n) for n in (4, 6, 6, 4)]
    assert free(solver) == [5]
    (conflict,) = solver.conflicts
    assert conflict == Cause("v", "fn.reshape", "factors (4, 6) and (6, 4) do not divide each other")
    assert solver.find(group[0]).cause is conflict


def test_reshape_conflict_freezes_only_its_group(solver: AxisSolver) -> None:
    a, b, c = solver.atom(4), solver.atom(6), solver.atom(7)
    out = solver.reshape([a, b, c], [6, 4, 7], WHY)
    assert shown(solver, *out, a, b) == ["6", "4", "a2:7", "4", "6"]


def test_split_right_conflict_is_none_and_changes_nothing(solver: AxisSolver) -> None:
    a, b = solver.atom(4), solver.atom(6)
    assert solver.split_right(product(a, b), 4, WHY) is None
    assert free(solver) == [4, 6]
    with pytest.raises(ValueError, match="rows of 5"):
        solver.split_right(a, 5, WHY)


def test_split_right_ends(solver: AxisSolver) -> None:
    a = solver.atom(4)
    assert solver.split_right(a, 4, WHY) == (Fixed(1), a)
    assert solver.split_right(a, 1, WHY) == (a, Fixed(1))


def test_swapped_concat_refines_to_fixed(solver: AxisSolver) -> None:
    a, b = solver.atom(5), solver.atom(8)
    solver.unify(concat(a, b), concat(b, a), WHY)
    assert (solver.find(a), solver.find(b)) == (Fixed(5), Fixed(8))
    assert free(solver) == []


def test_swapped_concat_keeps_the_common_divisor(solver: AxisSolver) -> None:
    a, b = solver.atom(6), solver.atom(9)
    solver.unify(concat(a, b), concat(b, a), WHY)
    assert free(solver) == [3]


def test_unify_concats_of_different_atoms(solver: AxisSolver) -> None:
    a, b, c, d = (solver.atom(n) for n in (5, 8, 8, 5))
    solver.unify(concat(a, b), concat(c, d), WHY)
    assert sorted(free(solver)) == [3, 5, 5]


def test_unify_concat_with_product(solver: AxisSolver) -> None:
    a, b, p, q = (solver.atom(n) for n in (6, 9, 5, 3))
    solver.unify(concat(a, b), product(p, q), WHY)
    assert shown(solver, a, b, p) == ["(a4:2*a3:3)", "(a5:3*a3:3)", "[a4:2+a5:3]"]


def test_unify_refuses_other_sizes(solver: AxisSolver) -> None:
    with pytest.raises(ValueError, match="cannot unify axes of 3 and 4"):
        solver.unify(solver.atom(3), solver.atom(4), WHY)


def test_unify_all(solver: AxisSolver) -> None:
    solver.unify_all([], WHY)
    solver.unify_all([solver.atom(3) for _ in range(4)], WHY)
    assert free(solver) == [3]


# 7: fragments


def test_too_many_fragments_freeze_the_whole_atom(solver: AxisSolver) -> None:
    a, bystander = solver.atom(1024), solver.atom(8)
    pieces = solver.cut(a, range(2, 1024, 2), WHY)
    assert len(pieces) == 512
    assert solver.find(a) == Fixed(1024)
    assert solver.find(a).cause == Cause("v", "fn.reshape", "too fragmented")
    assert solver.atoms() == [bystander]


def test_fragments_add_up_over_cuts(solver: AxisSolver) -> None:
    a = solver.atom(4000)
    rest = a
    for _ in range(254):
        rest = solver.cut(rest, [3], WHY)[1]
    assert len(free(solver)) == 255
    for _ in range(3):
        rest = solver.cut(rest, [3], WHY)[1]
    assert free(solver) == []


# 8: expressions go stale, and find refreshes them


def test_held_expressions_are_refreshed(solver: AxisSolver) -> None:
    a, b = solver.atom(6), solver.atom(2)
    held = product(b, a)
    first, _ = solver.cut(a, [2])
    solver.unify(first, b, WHY)
    assert shown(solver, held) == ["(a1:2*[a1:2+a3:4])"]


# 9: a coincidence at one size


def test_two_hint_sizes_tell_a_scramble_from_the_identity() -> None:
    def scrambled(n: int) -> bool:
        solver = AxisSolver()
        channels = solver.atom(8)
        solver.reshape([Fixed(2), channels, Fixed(n)], [2, n, 8], WHY)
        return isinstance(solver.find(channels), Fixed)

    assert [scrambled(n) for n in (8, 9)] == [False, True]


# 33: causes


def test_the_first_cause_wins_and_the_root_cause_travels(solver: AxisSolver) -> None:
    a, b, c = (solver.atom(4) for _ in range(3))
    solver.freeze(a, OTHER)
    solver.unify(b, a, WHY)
    solver.freeze(b, WHY)
    solver.unify(c, Fixed(4), WHY)
    causes = [solver.find(axis).cause for axis in (a, b, c)]
    assert causes == [OTHER, OTHER, WHY]


def test_freezing_reaches_every_atom_of_an_expression(solver: AxisSolver) -> None:
    a, b, c = (solver.atom(n) for n in (2, 3, 4))
    solver.freeze(concat(product(a, b), c), WHY)
    assert solver.atoms() == []
    assert isinstance(a, Atom)
