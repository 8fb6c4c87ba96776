from __future__ import annotations

from typing import NamedTuple

import torch

from torch_dag_core.graph.nested import leaves, map_by_class, map_leaves, map_pairs


class Pair(NamedTuple):
    a: int
    b: int


NESTED = (1, [2, {"x": 3, "y": (4,)}], slice(5, None, 6), Pair(7, 8), "text")


def test_leaves_stand_in_order():
    assert leaves(NESTED) == [1, 2, 3, 4, 5, None, 6, 7, 8, "text"]
    assert leaves(9) == [9]
    assert leaves(()) == []


def test_every_leaf_is_replaced_and_every_container_kept():
    doubled = map_leaves(NESTED, lambda leaf: leaf * 2 if isinstance(leaf, int) else leaf)
    assert doubled == (2, [4, {"x": 6, "y": (8,)}], slice(10, None, 12), Pair(14, 16), "text")
    assert type(doubled[3]) is Pair


def test_other_subclasses_of_tuple_become_plain():
    assert type(map_leaves(torch.Size([1, 2]), str)) is tuple
    values = torch.ones(2, 3).max(1)
    assert type(map_leaves(values, lambda leaf: leaf)) is tuple


def test_pairs_are_walked_together():
    first, second = (1, [2, {"x": 3}], slice(4, 5, 6)), (10, [20, {"x": 30}], slice(40, 50, 60))
    assert map_pairs(first, second, lambda a, b: a + b) == (11, [22, {"x": 33}], slice(44, 55, 66))
    assert map_pairs((1, 2), [10, 20], lambda a, b: a + b) == (11, 22)
    assert map_pairs(Pair(1, 2), (3, 4), lambda a, b: (a, b)) == Pair((1, 3), (2, 4))


def test_what_has_another_structure_is_handed_over_whole():
    pairs = []
    map_pairs((1, (2, 3), {"x": 4}), (1, (2,), {"y": 4}), lambda a, b: pairs.append((a, b)))
    assert pairs == [(1, 1), ((2, 3), (2,)), ({"x": 4}, {"y": 4})]


def test_rules_apply_to_leaves_of_exactly_their_class():
    class Count(int):
        pass

    value = (Count(1), [2, Count(3)], {"a": (True, "x")}, slice(Count(4), None))
    found = map_by_class(value, {Count: lambda n: -int(n), bool: str})
    assert found == (-1, [2, -3], {"a": ("True", "x")}, slice(-4, None))
    assert map_by_class(Count(5), {int: str}) == 5
