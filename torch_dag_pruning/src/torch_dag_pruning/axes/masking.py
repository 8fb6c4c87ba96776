"""Masks and lists of kept positions, computed from axis expressions."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from torch_dag_pruning.axes.expression import Atom, Axis, Interpretation, atoms, fold


def mask(axis: Axis, masks: Mapping[int, Tensor]) -> Tensor:
    """Return one mask value for each slot of `axis`; differentiable in the masks of its atoms.

    A slot of a Product is kept only if all its factors keep it, so the mask of a Product is the
    flattened outer product of the masks of its factors (``docs/axis-algebra.md``, A8).

    Args:
        axis: A resolved expression.
        masks: A vector (slots of the atom,) by atom id. The ones for Fixed slots get its dtype and
            device.
    """
    like = next(iter(masks.values()), torch.ones(0))
    vectors: Interpretation[Tensor] = Interpretation(
        fixed=lambda fixed: like.new_ones(fixed.n),
        atom=lambda atom: masks[atom.id],
        product=lambda factors: functools.reduce(_outer, factors),
        concat=torch.cat,
    )
    return fold(axis, vectors)


def _outer(outer: Tensor, inner: Tensor) -> Tensor:
    return (outer[:, None] * inner[None, :]).flatten()


def kept_indices(axis: Axis, masks: Mapping[int, Tensor]) -> Tensor:
    """Return the positions of the slots whose mask is not zero, in ascending order."""
    return mask(axis, masks).detach().nonzero().flatten()


def membership(axis: Axis, atom: Atom) -> Tensor:
    """Return how often each slot of an atom occurs at each position of `axis`: a matrix (positions, slots)."""
    masks = {each.id: torch.ones(each.n, dtype=torch.float64) for each in atoms(axis)}
    jacobian: Tensor = torch.func.jacrev(lambda own: mask(axis, masks | {atom.id: own}))(masks[atom.id])
    return jacobian
