"""Elementwise arithmetic, comparison and logic."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import elementwise, free
from torch_dag_core.plugins.declarations import op


class Binary(Op):
    """Base of elementwise ops of two tensors that broadcast, or of one tensor and a constant.

    Attributes:
        scalar: The constant; None if there are two operands.
        scalar_first: Whether the constant is the first argument of ``function``.
        function: The function of two arguments.
        commutative: Whether the arguments can be swapped.
        spellings: Names of the torch functions that become this op.
        reflected: Names of those with swapped arguments, such as ``__rsub__``.
    """

    scalar: float | complex | bool | None = None
    scalar_first: bool = False
    function: ClassVar[Callable[..., Any]]
    commutative: ClassVar[bool] = False
    spellings: ClassVar[tuple[str, ...]] = ()
    reflected: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return ``function(x, y)``, or ``function`` of ``x`` and the constant."""
        if y is not None:
            return type(self).function(x, y)  # type: ignore[no-any-return]
        return type(self).function(self.scalar, x) if self.scalar_first else type(self).function(x, self.scalar)  # type: ignore[no-any-return]


class Unary(Op):
    """Base of elementwise ops of one operand without constants."""

    function: ClassVar[Callable[..., Any]]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``function(x)``."""
        return type(self).function(x)  # type: ignore[no-any-return]


def _binary(
    name: str, key: str, function: Callable[..., Any], *spellings: str, reflected: tuple[str, ...] = (),
    commutative: bool = False,
) -> type[Binary]:  # fmt: skip
    """Create an op class for an elementwise function of two arguments, and declare it."""
    members = {
        "__doc__": f"Elementwise {name.lower()}.", "__module__": __name__, "function": staticmethod(function),
        "commutative": commutative, "spellings": spellings, "reflected": reflected,
    }  # fmt: skip
    return op(key, flops=elementwise)(type(name, (Binary,), members))


def _unary(
    name: str, key: str, function: Callable[..., Any], *functions: str, aliases: tuple[str, ...] = ()
) -> type[Unary]:
    """Create an op class for an elementwise function of one argument, and declare it."""
    members = {"__doc__": f"Elementwise {name.lower()}.", "__module__": __name__, "function": staticmethod(function)}
    return op(key, functions=functions, aliases=aliases, flops=elementwise)(type(name, (Unary,), members))


def _floor_divide(x: Any, y: Any) -> Tensor:
    return torch.div(x, y, rounding_mode="floor") if isinstance(x, Tensor) else operator.floordiv(x, y)


Add = _binary("Add", "core.add", operator.add, "add", "__add__", "__radd__", "__iadd__", commutative=True)
Sub = _binary("Sub", "core.sub", operator.sub, "sub", "subtract", "__sub__", "__isub__", reflected=("rsub", "__rsub__"))
Mul = _binary("Mul", "core.mul", operator.mul, "mul", "multiply", "__mul__", "__rmul__", "__imul__", commutative=True)
Div = _binary(
    "Div", "core.div", operator.truediv, "div", "divide", "true_divide", "__truediv__", "__itruediv__", "__div__",
    reflected=("__rdiv__", "__rtruediv__"),
)  # fmt: skip
FloorDiv = _binary(
    "FloorDiv", "core.floor_div", _floor_divide, "floor_divide", "__floordiv__", "__ifloordiv__",
    reflected=("__rfloordiv__",),
)  # fmt: skip
Remainder = _binary("Remainder", "core.remainder", torch.remainder, "remainder", "__mod__", reflected=("__rmod__",))
Pow = _binary("Pow", "core.pow", operator.pow, "pow", "__pow__", "__ipow__", reflected=("__rpow__",))
Maximum = _binary("Maximum", "core.maximum", torch.maximum, "maximum", commutative=True)
Minimum = _binary("Minimum", "core.minimum", torch.minimum, "minimum", commutative=True)
Eq = _binary("Eq", "core.eq", operator.eq, "eq", "__eq__", commutative=True)
Ne = _binary("Ne", "core.ne", operator.ne, "ne", "__ne__", "not_equal", commutative=True)
Lt = _binary("Lt", "core.lt", operator.lt, "lt", "__lt__", "less")
Le = _binary("Le", "core.le", operator.le, "le", "__le__", "less_equal")
Gt = _binary("Gt", "core.gt", operator.gt, "gt", "__gt__", "greater")
Ge = _binary("Ge", "core.ge", operator.ge, "ge", "__ge__", "greater_equal")
And = _binary("And", "core.and", operator.and_, "logical_and", "bitwise_and", "__and__", commutative=True)
Or = _binary("Or", "core.or", operator.or_, "logical_or", "bitwise_or", "__or__", commutative=True)
Xor = _binary("Xor", "core.xor", operator.xor, "logical_xor", "bitwise_xor", "__xor__", commutative=True)
Atan2 = _binary("Atan2", "core.atan2", torch.atan2, "atan2", "arctan2")

Neg = _unary("Neg", "core.neg", operator.neg, "neg", "negative", "__neg__")
Abs = _unary("Abs", "core.abs", torch.abs, "abs", "absolute", "__abs__")
Exp = _unary("Exp", "core.exp", torch.exp, "exp")
Expm1 = _unary("Expm1", "core.expm1", torch.expm1, "expm1")
Log = _unary("Log", "core.log", torch.log, "log")
Log1p = _unary("Log1p", "core.log1p", torch.log1p, "log1p")
Sqrt = _unary("Sqrt", "core.sqrt", torch.sqrt, "sqrt")
Rsqrt = _unary("Rsqrt", "core.rsqrt", torch.rsqrt, "rsqrt")
Reciprocal = _unary("Reciprocal", "core.reciprocal", torch.reciprocal, "reciprocal")
Square = _unary("Square", "core.square", torch.square, "square")
Sin = _unary("Sin", "core.sin", torch.sin, "sin")
Cos = _unary("Cos", "core.cos", torch.cos, "cos")
Erf = _unary("Erf", "core.erf", torch.erf, "erf")
Floor = _unary("Floor", "core.floor", torch.floor, "floor")
Ceil = _unary("Ceil", "core.ceil", torch.ceil, "ceil")
Round = _unary("Round", "core.round", torch.round, "round")
Sign = _unary("Sign", "core.sign", torch.sign, "sign")
Invert = _unary("Invert", "core.invert", operator.invert, "logical_not", "bitwise_not", "__invert__")
IsNan = _unary("IsNan", "core.isnan", torch.isnan, "isnan", aliases=("core.is_nan",))


@op("core.where", flops=elementwise)
class Where(Op):
    """Choose elementwise between two operands, either of which may be a constant."""

    x: float | bool | None = None
    y: float | bool | None = None

    def forward(self, condition: Tensor, *operands: Tensor) -> Tensor:
        """Return ``torch.where(condition, x, y)``; ``operands`` are those of x and y that are not constants."""
        rest = list(operands)
        x = rest.pop(0) if self.x is None else self.x
        y = rest.pop(0) if self.y is None else self.y
        return torch.where(condition, x, y)


@op("core.masked_fill", flops=elementwise)
class MaskedFill(Op):
    """Replace elements by a constant where a mask is true."""

    value: float | bool

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return ``x`` with ``value`` where ``mask`` (broadcastable, bool) is true."""
        return x.masked_fill(mask, self.value)


@op("core.clamp", flops=elementwise)
class Clamp(Op):
    """Limit every element to a range of constants."""

    min: float | None = None
    max: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` limited to ``[min, max]``."""
        return torch.clamp(x, self.min, self.max)


@op("core.cast", flops=free)
class Cast(Op):
    """Convert to another dtype."""

    dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` in the dtype ``dtype``."""
        return x.to(self.dtype)


@op("core.cast_like", flops=free)
class CastLike(Op):
    """Convert to the dtype of another operand."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Return ``x`` in the dtype of ``like``."""
        return x.to(like.dtype)


@op("core.detach", flops=free)
class Detach(Op):
    """Stop gradients at this value."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x.detach()``."""
        return x.detach()
