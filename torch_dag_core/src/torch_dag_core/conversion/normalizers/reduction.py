"""Reductions whose torch spellings differ from the op's."""

from __future__ import annotations

from typing import Any

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.ops.arithmetic import Div, Maximum, Minimum, Mul
from torch_dag_core.ops.normalization import Normalize
from torch_dag_core.ops.reduction import Amax, Amin, MaxAlong, Mean, MinAlong, Norm, Std, Sum, Var, VarMean


def _dims(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, (tuple, list)) else dim


@normalizes("sum", "mean")
def total(call: Call, input: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """Sum and mean, over everything where no dimension is given."""
    return call.emit({"sum": Sum, "mean": Mean}[call.name](_dims(dim), keepdim, dtype), input)


@normalizes("amax", "amin")
def extreme(call: Call, input: Value, dim: Any = (), keepdim: bool = False) -> Value:
    """Maximum and minimum over dimensions."""
    return call.emit({"amax": Amax, "amin": Amin}[call.name](_dims(dim), keepdim), input)


@normalizes("max", "min")
def maximum(call: Call, input: Value, dim: Any = None, keepdim: bool = False, other: Any = None) -> Value:
    """Over everything, of two tensors, or along a dimension with positions."""
    whole, pair, along = {"max": (Amax, Maximum, MaxAlong), "min": (Amin, Minimum, MinAlong)}[call.name]
    second = dim if isinstance(dim, Value) else other
    if isinstance(second, Value):
        return call.emit(pair(), input, second)
    return call.emit(whole(), input) if dim is None else call.emit(along(dim, keepdim), input)


@normalizes("var", "std", "var_mean")
def variance(
    call: Call, input: Value, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **kw: Any
) -> Value:
    """Statistics with Bessel's correction given in any of torch's ways."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    correction = kw.get("correction", 1 if unbiased is None else int(unbiased))
    op = {"var": Var, "std": Std, "var_mean": VarMean}[call.name]
    return call.emit(op(_dims(dim), 1 if correction is None else correction, kw.get("keepdim", keepdim)), input)


@normalizes("norm", "vector_norm")
def norm(call: Call, input: Value, p: Any = None, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """Vector norms."""
    if kwargs.get("dtype") is not None or kwargs.get("out") is not None:
        return NotImplemented
    p = kwargs.get("ord", p)
    if p in (None, "fro"):
        p = 2
    return call.emit(Norm(p, _dims(dim), keepdim), input) if not isinstance(p, str) else NotImplemented


@normalizes("_weight_norm")
def weight_norm(call: Call, input: Value, length: Value, dim: int = 0) -> Value:
    """A direction and a length of its own (arXiv:1602.07868)."""
    dims = tuple(place for place in range(len(input.shape or ())) if place != dim)
    scale = call.emit(Div(), length, call.emit(Norm(2, dims, keepdim=True), input, stem="norm"), stem="scale")
    return call.emit(Mul(), input, scale, stem="weight")


@normalizes("normalize")
def normalize(call: Call, input: Value, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Value:
    """Divide by a norm."""
    del out
    return call.emit(Normalize(p, _dims(dim), eps), input)
