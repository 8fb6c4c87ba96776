"""Canonical forms, and the folds over them."""

from __future__ import annotations

import copy

import pytest
import torch

from torch_dag_pruning.axes import (
    Atom,
    Axis,
    Cause,
    Concat,
    Fixed,
    Product,
    atoms,
    concat,
    kept_indices,
    mask,
    product,
    size,
)

X, Y, Z = Atom(0, 2), Atom(1, 3), Atom(2, 4)
WHY = Cause("fc", "nn.linear", "output")


@pytest.mark.parametrize(
    ("made", "text", "n"),
    [
        (product(), "1", 1),
        (product(X), "a0:2", 2),
        (product(X, Fixed(1), Y), "(a0:2*a1:3)", 6),
        (product(product(X, Y), product(Z, X)), "(a0:2*a1:3*a2:4*a0:2)", 48),
        (product(Fixed(2), Fixed(3), X), "(6*a0:2)", 12),
        (product(product(X, Fixed(2)), product(Fixed(3), Y)), "(a0:2*6*a1:3)", 36),
        (product(Fixed(2), Fixed(3)), "6", 6),
        (product(X, Fixed(0), Y), "0", 0),
        (concat(), "0", 0),
        (concat(X), "a0:2", 2),
        (concat(Fixed(0), X, Fixed(0)), "a0:2", 2),
        (concat(concat(X, Y), concat(Z, X)), "[a0:2+a1:3+a2:4+a0:2]", 11),
        (concat(Fixed(2), Fixed(3), X), "[5+a0:2]", 7),
        (concat(concat(X, Fixed(2)), concat(Fixed(3), Y)), "[a0:2+5+a1:3]", 10),
        (concat(X, X, X), "(3*a0:2)", 6),
        (concat(product(Fixed(2), X), X), "(3*a0:2)", 6),
        (concat(X, product(Fixed(2), X), Y), "[(3*a0:2)+a1:3]", 9),
        (concat(product(X, Y), product(X, Y)), "(2*a0:2*a1:3)", 12),
        (concat(concat(X, Y), X), "[a0:2+a1:3+a0:2]", 7),
        (product(Z, concat(X, Y)), "(a2:4*[a0:2+a1:3])", 20),
    ],
)
def test_canonical_form(made: Axis, text: str, n: int) -> None:
    assert str(made) == text
    assert made.n == n


def test_equal_sets_have_one_spelling() -> None:
    assert concat(X, X, X) == product(Fixed(3), X)
    assert concat(concat(X, X), concat(X)) == concat(X, concat(X, X))
    assert product(product(Fixed(2), X), Y) == product(Fixed(2), product(X, Y))


def test_cause_is_outside_equality_and_the_first_wins() -> None:
    other = Cause("x", "input", "input")
    assert Fixed(3, WHY) == Fixed(3, other) == Fixed(3)
    merged = [concat(Fixed(2), Fixed(1, WHY), Fixed(1, other)), product(Fixed(2, WHY), Fixed(2, other))]
    assert [axis.cause for axis in merged if isinstance(axis, Fixed)] == [WHY, WHY]
    assert str(WHY) == "fc (nn.linear): output"


def test_expressions_are_frozen() -> None:
    with pytest.raises(AttributeError):
        X.n = 5
    assert copy.deepcopy(product(X, Y)) == product(X, Y)


def test_atoms_come_once_and_in_order_of_appearance() -> None:
    assert atoms(concat(product(Y, X), Fixed(3), Z, Y)) == [Y, X, Z]


def test_size_of_counts() -> None:
    axis = concat(product(Fixed(3), X, Y), Z, Fixed(5))
    assert size(axis, {0: 2, 1: 3, 2: 4}) == axis.n
    assert size(axis, {0: 1, 1: 2, 2: 0}) == 3 * 2 + 0 + 5


def test_size_is_differentiable() -> None:
    counts = {i: torch.tensor(float(n), requires_grad=True) for i, n in enumerate((2, 3, 4))}
    total = size(concat(product(Fixed(3), X, Y), Z), counts)
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert [counts[i].grad.item() for i in range(3)] == [9.0, 6.0, 1.0]


def test_mask_is_row_major_and_differentiable() -> None:
    masks = {0: torch.tensor([1.0, 0.5]), 1: torch.tensor([1.0, 0.0, 2.0])}
    masks[0].requires_grad_()
    made = mask(concat(product(X, Y), Fixed(2)), masks)
    assert made.tolist() == [1, 0, 2, 0.5, 0, 1, 1, 1]
    made.sum().backward()
    assert masks[0].grad.tolist() == [3, 3]


def test_importance_of_a_slot_is_the_gradient_at_one() -> None:
    masks = {i: torch.ones(n, requires_grad=True) for i, n in ((0, 2), (1, 3))}
    scores = torch.arange(18.0)
    (scores @ mask(product(Fixed(3), X, Y), masks)).backward()
    assert torch.equal(masks[0].grad, scores.view(3, 2, 3).sum((0, 2)))
    assert torch.equal(masks[1].grad, scores.view(3, 2, 3).sum((0, 1)))


def test_mask_of_fixed_needs_no_masks_and_follows_their_dtype() -> None:
    assert torch.equal(mask(Fixed(3), {}), torch.ones(3))
    assert mask(Fixed(3), {0: torch.ones(2, dtype=torch.float64)}).dtype == torch.float64


def test_kept_indices_and_size_agree() -> None:
    axis = concat(product(Fixed(2), X), Y, Fixed(1))
    masks = {0: torch.tensor([0.0, 1.0]), 1: torch.tensor([1.0, 0.0, 1.0])}
    kept = kept_indices(axis, masks)
    assert kept.tolist() == [1, 3, 4, 6, 7]
    assert len(kept) == size(axis, {0: 1, 1: 2})


def test_kinds() -> None:
    assert isinstance(product(X, Y), Product)
    assert isinstance(concat(X, Y), Concat)
