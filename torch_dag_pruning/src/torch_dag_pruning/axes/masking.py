"""Mask vectors and index lists of axis expressions."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from torch_dag_pruning.axes.expression import Axis, Interpretation, fold


def mask(axis: Axis, masks: Mapping[int, Tensor]) -> Tensor:
    """Return the mask of every slot of `axis`, differentiable in the masks of its atoms.

    A slot of a Product is kept as far as all its factors keep it, so its mask is the flattened
    outer product (rule 27 of the axis algebra note).

    Args:
        axis: A resolved expression.
        masks: One vector by atom id. Fixed slots take their dtype and device.
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
    """Return the positions, in ascending order, of the slots whose mask is not zero."""
    return mask(axis, masks).detach().nonzero().flatten()
