"""Conditions on input sizes: their operators, their value at given sizes, their text, and which ones are well formed.

A condition is a nested tuple ``(operator, *operands)``. An operand is a number, another such tuple, or a leaf
``("input", i, d)``: the size of dimension ``d`` of input ``i``. A condition holds where its value is true. Those on the
state in which a graph is called, see `caller_state`, are compared with nothing else.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_dag_core.graph.caller_state import SETTINGS, check_of_caller, is_of_caller, text_of_caller

MAX_NESTING = 40
"""Python's own compiler refuses about 100 nested brackets."""
LEAF = "input"
NO_VALUE = (ArithmeticError, TypeError, ValueError)
"""What operators raise: on a division by zero, on the bits of a float, outside the domain of a function."""


@dataclass(frozen=True)
class Operator:
    """One operator of conditions.

    Attributes:
        function: Computes its value; raises one of `NO_VALUE` where there is none.
        text: A format string for its operands.
        arity: How many operands it takes.
        inline: Whether ``text`` is Python that cannot fail, whatever the sizes.
    """

    function: Callable[..., Any]
    text: str
    arity: int = 2
    inline: bool = True


def _power(base: float, exponent: float) -> float:
    """Return the power as a float, so that no condition computes an integer of unbounded length."""
    result: Any = float(base) ** float(exponent)
    if isinstance(result, complex):
        message = f"{base} ** {exponent} is no real number"
        raise ValueError(message)  # noqa: TRY004  no argument is of the wrong type
    return float(result)


def _infix(function: Callable[..., Any], sign: str, *, inline: bool = True) -> Operator:
    return Operator(function, f"({{}} {sign} {{}})", inline=inline)


def _call(name: str, function: Callable[..., Any], arity: int = 1) -> Operator:
    return Operator(function, f"{name}({', '.join(['{}'] * arity)})", arity, inline=False)


OPERATORS: dict[str, Operator] = {
    "eq": _infix(operator.eq, "=="),
    "ne": _infix(operator.ne, "!="),
    "lt": _infix(operator.lt, "<"),
    "le": _infix(operator.le, "<="),
    "gt": _infix(operator.gt, ">"),
    "ge": _infix(operator.ge, ">="),
    "add": _infix(operator.add, "+"),
    "sub": _infix(operator.sub, "-"),
    "mul": _infix(operator.mul, "*"),
    "floordiv": _infix(operator.floordiv, "//"),
    "mod": _infix(operator.mod, "%"),
    "truediv": _infix(operator.truediv, "/"),
    "and": _infix(operator.and_, "&", inline=False),
    "or": _infix(operator.or_, "|", inline=False),
    "xor": _infix(operator.xor, "^", inline=False),
    "power": _call("pow", _power, 2),
    "gcd": _call("gcd", math.gcd, 2),
    "lcm": _call("lcm", math.lcm, 2),
    "isqrt": _call("isqrt", math.isqrt),
    "sqrt": _call("sqrt", math.sqrt),
    "log": _call("log", math.log),
    "log2": _call("log2", math.log2),
    "abs": _call("abs", abs),
    "floor": _call("floor", math.floor),
    "ceil": _call("ceil", math.ceil),
    "trunc": _call("trunc", math.trunc),
    "round": _call("round", round),
    "float": _call("float", float),
    "bit_length": _call("bit_length", lambda value: int(value).bit_length()),
}
NEGATED = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
_DIVISIONS = frozenset({"floordiv", "mod", "truediv"})


def evaluate(expression: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return the value of an expression; ``leaf`` gives that of whatever is neither a number nor an operation.

    Raises:
        One of `NO_VALUE`: it has none, as where it divides by zero.
    """
    if isinstance(expression, tuple) and expression[0] in OPERATORS:
        return OPERATORS[expression[0]].function(*[evaluate(operand, leaf) for operand in expression[1:]])
    return expression if type(expression) in (int, float) else leaf(expression)


def holds(condition: Any, shapes: Sequence[Sequence[int]]) -> bool:
    """Tell whether a condition is true for inputs of these shapes; one without a value is not.

    Conditions on the state of the caller are no matter of shapes, and count as true.
    """
    if is_of_caller(condition):
        return True
    try:
        return bool(evaluate(condition, lambda leaf: shapes[leaf[1]][leaf[2]]))
    except NO_VALUE:
        return False


def hold(assumptions: Iterable[Any], shapes: Sequence[Sequence[int]]) -> bool:
    """Tell whether inputs of these shapes respect every `Assumption`."""
    return all(holds(assumption.condition, shapes) for assumption in assumptions)


def _text_of_setting(name: str) -> str:
    return SETTINGS[name].text


def render(
    condition: Any, variable: Callable[[int], str], setting: Callable[[str], str] = _text_of_setting
) -> str:  # fmt: skip
    """Return the condition as text over ``variable(i).shape[d]``, and over what ``setting`` gives for its name."""
    if is_of_caller(condition):
        return text_of_caller(condition, variable, setting)
    if not isinstance(condition, tuple):
        return str(condition)
    if condition[0] == LEAF:
        return f"{variable(condition[1])}.shape[{condition[2]}]"
    return OPERATORS[condition[0]].text.format(*(render(operand, variable) for operand in condition[1:]))


def inputs_of(condition: Any) -> set[int]:
    """Return the numbers of the inputs whose sizes a condition reads."""
    if not isinstance(condition, tuple):
        return set()
    return {condition[1]} if condition[0] == LEAF else set().union(*map(inputs_of, condition[1:]))


def is_inline(condition: Any) -> bool:
    """Tell whether the text of a condition is Python that cannot fail, whatever the sizes."""
    if is_of_caller(condition):
        return True
    if not isinstance(condition, tuple) or condition[0] == LEAF:
        return True
    divides = condition[0] in _DIVISIONS and (isinstance(condition[2], tuple) or condition[2] == 0)
    return OPERATORS[condition[0]].inline and not divides and all(map(is_inline, condition[1:]))


def check(condition: Any, inputs: int, depth: int = 0) -> None:
    """Refuse what is no condition on the sizes of so many inputs.

    Raises:
        ValueError: says which part is wrong.
    """
    if type(condition) is int or (type(condition) is float and math.isfinite(condition)):
        return
    if depth == 0 and is_of_caller(condition):
        if not check_of_caller(condition, inputs):
            _refuse(condition, "is not a condition on the state of the caller")
        return
    if not isinstance(condition, tuple) or len(condition) < 2 or depth > MAX_NESTING:
        _refuse(condition, "is not a condition on input sizes")
    name, *operands = condition
    if name == LEAF:
        is_leaf = len(operands) == 2 and all(type(place) is int for place in operands)
        if not is_leaf or not 0 <= operands[0] < inputs:
            _refuse(condition, "names no size of an input")
        return
    if not isinstance(name, str) or name not in OPERATORS:
        _refuse(name, "is not an operator of a condition on input sizes")
    if len(operands) != OPERATORS[name].arity:
        _refuse(condition, f"is not a condition on input sizes: {name} takes {OPERATORS[name].arity} operands")
    for operand in operands:
        check(operand, inputs, depth + 1)


def _refuse(part: Any, why: str) -> None:
    message = f"{part!r:.60} {why}"
    raise ValueError(message)
