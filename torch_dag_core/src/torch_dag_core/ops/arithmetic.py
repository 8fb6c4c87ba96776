"""Elementwise arithmetic, comparison and logic; two operands broadcast, a constant stands for either."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op


class Binary(Op):
    """Base of two-operand elementwise ops; ``scalar`` replaces the second operand, or the first."""

    scalar: float | complex | bool | None = None
    scalar_first: bool = False
    function: ClassVar[Callable[..., Any]]
    commutative: ClassVar[bool] = False

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Combine two tensors that broadcast, or one tensor and the constant."""
        if y is not None:
            return type(self).function(x, y)  # type: ignore[no-any-return]
        return type(self).function(self.scalar, x) if self.scalar_first else type(self).function(x, self.scalar)  # type: ignore[no-any-return]


class Unary(Op):
    """Base of one-operand elementwise ops without constants."""

    function: ClassVar[Callable[..., Any]]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return type(self).function(x)  # type: ignore[no-any-return]


def _binary(name: str, function: Callable[..., Any], *, commutative: bool = False) -> type[Binary]:
    members = {"__doc__": f"Elementwise {name.lower()}.", "__module__": __name__}
    return type(name, (Binary,), {**members, "function": staticmethod(function), "commutative": commutative})


def _unary(name: str, function: Callable[..., Any]) -> type[Unary]:
    members = {"__doc__": f"Elementwise {name.lower()}.", "__module__": __name__}
    return type(name, (Unary,), {**members, "function": staticmethod(function)})


def _floor_divide(x: Any, y: Any) -> Tensor:
    return torch.div(x, y, rounding_mode="floor") if isinstance(x, Tensor) else operator.floordiv(x, y)


Add = _binary("Add", operator.add, commutative=True)
Sub = _binary("Sub", operator.sub)
Mul = _binary("Mul", operator.mul, commutative=True)
Div = _binary("Div", operator.truediv)
FloorDiv = _binary("FloorDiv", _floor_divide)
Remainder = _binary("Remainder", torch.remainder)
Pow = _binary("Pow", operator.pow)
Maximum = _binary("Maximum", torch.maximum, commutative=True)
Minimum = _binary("Minimum", torch.minimum, commutative=True)
Eq = _binary("Eq", operator.eq, commutative=True)
Ne = _binary("Ne", operator.ne, commutative=True)
Lt = _binary("Lt", operator.lt)
Le = _binary("Le", operator.le)
Gt = _binary("Gt", operator.gt)
Ge = _binary("Ge", operator.ge)
And = _binary("And", operator.and_, commutative=True)
Or = _binary("Or", operator.or_, commutative=True)
Xor = _binary("Xor", operator.xor, commutative=True)
Atan2 = _binary("Atan2", torch.atan2)

Neg = _unary("Neg", operator.neg)
Abs = _unary("Abs", torch.abs)
Exp = _unary("Exp", torch.exp)
Expm1 = _unary("Expm1", torch.expm1)
Log = _unary("Log", torch.log)
Log1p = _unary("Log1p", torch.log1p)
Sqrt = _unary("Sqrt", torch.sqrt)
Rsqrt = _unary("Rsqrt", torch.rsqrt)
Reciprocal = _unary("Reciprocal", torch.reciprocal)
Square = _unary("Square", torch.square)
Sin = _unary("Sin", torch.sin)
Cos = _unary("Cos", torch.cos)
Erf = _unary("Erf", torch.erf)
Floor = _unary("Floor", torch.floor)
Ceil = _unary("Ceil", torch.ceil)
Round = _unary("Round", torch.round)
Sign = _unary("Sign", torch.sign)
Invert = _unary("Invert", operator.invert)
IsNan = _unary("IsNan", torch.isnan)

BINARY: dict[type[Binary], tuple[str, ...]] = {
    Add: ("add", "__add__", "__radd__", "__iadd__"),
    Sub: ("sub", "subtract", "__sub__", "__isub__"),
    Mul: ("mul", "multiply", "__mul__", "__rmul__", "__imul__"),
    Div: ("div", "divide", "true_divide", "__truediv__", "__itruediv__", "__div__"),
    FloorDiv: ("floor_divide", "__floordiv__", "__ifloordiv__"),
    Remainder: ("remainder", "__mod__"),
    Pow: ("pow", "__pow__", "__ipow__"),
    Maximum: ("maximum",),
    Minimum: ("minimum",),
    Eq: ("eq", "__eq__"),
    Ne: ("ne", "__ne__", "not_equal"),
    Lt: ("lt", "__lt__", "less"),
    Le: ("le", "__le__", "less_equal"),
    Gt: ("gt", "__gt__", "greater"),
    Ge: ("ge", "__ge__", "greater_equal"),
    And: ("logical_and", "bitwise_and", "__and__"),
    Or: ("logical_or", "bitwise_or", "__or__"),
    Xor: ("logical_xor", "bitwise_xor", "__xor__"),
    Atan2: ("atan2", "arctan2"),
}
"""Names of the torch functions that become each op; reversed ones (``__rsub__``) swap the operands."""

REVERSED: dict[str, type[Binary]] = {
    "rsub": Sub, "__rsub__": Sub, "__rdiv__": Div, "__rtruediv__": Div, "__rpow__": Pow, "__rfloordiv__": FloorDiv,
    "__rmod__": Remainder,
}  # fmt: skip

UNARY: dict[type[Unary], tuple[str, ...]] = {
    Neg: ("neg", "negative", "__neg__"),
    Abs: ("abs", "absolute", "__abs__"),
    Exp: ("exp",),
    Expm1: ("expm1",),
    Log: ("log",),
    Log1p: ("log1p",),
    Sqrt: ("sqrt",),
    Rsqrt: ("rsqrt",),
    Reciprocal: ("reciprocal",),
    Square: ("square",),
    Sin: ("sin",),
    Cos: ("cos",),
    Erf: ("erf",),
    Floor: ("floor",),
    Ceil: ("ceil",),
    Round: ("round",),
    Sign: ("sign",),
    Invert: ("logical_not", "bitwise_not", "__invert__"),
    IsNan: ("isnan",),
}


class Where(Op):
    """Choose elementwise between two operands; a constant stands for either."""

    x: float | bool | None = None
    y: float | bool | None = None

    def forward(self, condition: Tensor, *operands: Tensor) -> Tensor:
        """Return ``torch.where(condition, x, y)`` with operands filled in where no constant is."""
        rest = list(operands)
        x = rest.pop(0) if self.x is None else self.x
        y = rest.pop(0) if self.y is None else self.y
        return torch.where(condition, x, y)


class MaskedFill(Op):
    """Put a constant where a mask holds."""

    value: float | bool

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return ``x`` with ``value`` where ``mask`` (broadcastable, bool) is true."""
        return x.masked_fill(mask, self.value)


class Clamp(Op):
    """Limit every element to constants."""

    min: float | None = None
    max: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` limited to ``[min, max]``."""
        return torch.clamp(x, self.min, self.max)


class Cast(Op):
    """Change the element type."""

    dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` as ``dtype``."""
        return x.to(self.dtype)


class CastLike(Op):
    """Change the element type to that of another operand."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Return ``x`` as the type of ``like``."""
        return x.to(like.dtype)


class Detach(Op):
    """Stop gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` outside the autograd graph."""
        return x.detach()
