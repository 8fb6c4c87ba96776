"""Results of copies and lookups on tensors without data, where they are known without running torch.

Whether a result shares the memory of its operand is part of what a trace records. So a call that gives a view is left
to torch, and only what is a tensor of its own, or the operand itself, is answered here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from torch_dag_core.tracing.recording import Live

_INDEX_TYPES = (torch.int64, torch.int32)


def contiguous(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow ``x.contiguous()``: the tensor itself where it is contiguous, else a copy."""
    (x, *others) = args
    if not isinstance(x, Tensor) or others or kwargs:
        return None
    return x if x.is_contiguous() else _empty(x, x.shape)


def reshape(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow ``x.reshape(sizes)`` where the result cannot be a view."""
    x, given = args[0], args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    if not isinstance(x, Tensor) or kwargs or x.numel() == 0 or x.is_contiguous():
        return None
    sizes = _complete([size for size in given if type(size) is int], x.numel())
    if sizes is None or len(sizes) != len(given) or _can_be_view(x.shape, x.stride(), sizes):
        return None
    return _empty(x, sizes)


def lookup(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow ``x[index]`` for one tensor of integers, which copies rows of ``x``."""
    x, index = args[0], args[1] if len(args) == 2 else None
    if not isinstance(x, Tensor) or not isinstance(index, Tensor) or kwargs or index.dtype not in _INDEX_TYPES:
        return None
    if index.dim() == 0 or index.numel() == 0 or x.dim() == 0 or x.numel() == 0 or not x.is_contiguous():
        return None
    return _empty(x, (*index.shape, *x.shape[1:]))


def dropout(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow a dropout that is off, which returns its operand itself."""
    given = dict(zip(("p", "training", "inplace"), args[1:], strict=False)) | kwargs
    x, p, is_on, in_place = args[0], given.get("p"), given.get("training"), given.get("inplace", False)
    if not isinstance(x, Tensor) or given.keys() - {"p", "training", "inplace"} or in_place is not False:
        return None
    if not isinstance(p, (int, float)) or not isinstance(is_on, bool) or not 0 <= p <= 1:
        return None
    return x if p == 0 or not is_on else None


def _empty(x: Tensor, sizes: Sequence[int]) -> Tensor:
    return torch.empty(tuple(sizes), dtype=x.dtype, device=x.device)


def _complete(sizes: list[int], count: int) -> list[int] | None:
    """Return sizes with the one of -1 computed from the number of elements; None where they do not fit it."""
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0:
        sizes = [count // known if size == -1 else size for size in sizes]
    return sizes if min(sizes, default=1) > 0 and math.prod(sizes) == count else None


def _can_be_view(shape: Sequence[int], strides: Sequence[int], sizes: Sequence[int]) -> bool:
    """Tell whether a tensor of this shape and these strides can be seen under other sizes without a copy.

    Dimensions that are evenly spaced in memory can be split and joined freely. Where the spacing changes between two
    neighbours, two of the new dimensions have to meet as well, after the same number of elements.
    """
    seams = set(accumulate(reversed(sizes), operator.mul, initial=1))
    count, expected = 1, None
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if expected not in (None, stride) and count not in seams:
            return False
        count, expected = count * size, stride * size
    return True
