"""Normalizers of reductions."""

from __future__ import annotations

from typing import TypeAlias

import torch

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft, frozen
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.ops.arithmetic import Div, Maximum, Minimum, Mul
from torch_dag_core.ops.normalization import Normalize
from torch_dag_core.ops.reduction import Amax, Amin, MaxAlong, Mean, MinAlong, Norm, Std, StdMean, Sum, Var, VarMean

Dims: TypeAlias = "int | tuple[int, ...] | list[int] | None"


def _dims(dim: Dims) -> int | tuple[int, ...] | None:
    return tuple(dim) if isinstance(dim, list) else dim


@normalizes("sum", "mean")
def total(
    call: Call, input: Value, dim: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Value:  # fmt: skip
    """Emit `Sum` or `Mean`."""
    op = Sum if call.name == "sum" else Mean
    return call.emit(op(_dims(dim), keepdim, dtype), input)


@normalizes("amax", "amin")
def extreme(call: Call, input: Value, dim: Dims = (), keepdim: bool = False) -> Value:
    """Emit `Amax` or `Amin`."""
    op = Amax if call.name == "amax" else Amin
    return call.emit(op(_dims(dim), keepdim), input)


@normalizes("max", "min")
def maximum(
    call: Call, input: Value, dim: Value | int | None = None, keepdim: bool = False, other: Value | None = None
) -> Value:  # fmt: skip
    """Emit a maximum or minimum: over all dimensions, of two tensors, or along a dimension with positions."""
    whole, pair, along = {"max": (Amax, Maximum, MaxAlong), "min": (Amin, Minimum, MinAlong)}[call.name]
    second = dim if isinstance(dim, Value) else other
    if isinstance(second, Value):
        return call.emit(pair(), input, second)
    return call.emit(whole(), input) if dim is None else call.emit(draft(along, dim, keepdim), input)


@normalizes("var", "std", "var_mean", "std_mean")
def variance(
    call: Call, input: Value, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False,
    correction: float | None = None,
) -> Value:  # fmt: skip
    """Emit `Var`, `Std`, `VarMean` or `StdMean`; ``unbiased`` becomes a correction of 0 or 1."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    op = {"var": Var, "std": Std, "var_mean": VarMean, "std_mean": StdMean}[call.name]
    return call.emit(op(_dims(dim), correction, keepdim), input)


@normalizes("norm", "vector_norm")
def norm(
    call: Call, input: Value, p: float | str | None = None, dim: Dims = None, keepdim: bool = False, *,
    ord: float | str | None = None, dtype: torch.dtype | None = None, out: Value | None = None,
) -> Emitted:  # fmt: skip
    """Emit `Norm`, unless it is a matrix norm or a dtype is given."""
    p = p if ord is None else ord
    if dtype is not None or out is not None or (isinstance(p, str) and p != "fro"):
        return PASS
    return call.emit(Norm(2 if p is None or p == "fro" else p, _dims(dim), keepdim), input)


@normalizes("_weight_norm")
def weight_norm(call: Call, input: Value, length: Value, dim: int = 0) -> Value:
    """Emit weight normalisation: ``input * length / norm(input)`` (arXiv:1602.07868)."""
    dims = tuple(place for place in range(len(input.shape or ())) if place != dim)
    scale = call.emit(Div(), length, call.emit(Norm(2, dims, keepdim=True), input, stem="norm"), stem="scale")
    return call.emit(Mul(), input, scale, stem="weight")


@normalizes("normalize")
def normalize(
    call: Call, input: Value, p: float = 2.0, dim: Operand = 1, eps: float = 1e-12, out: Value | None = None
) -> Value:  # fmt: skip
    """Emit `Normalize`."""
    del out
    return call.emit(draft(Normalize, p, frozen(dim), eps), input)
