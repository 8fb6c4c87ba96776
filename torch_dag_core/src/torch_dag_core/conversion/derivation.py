"""Formulas over sizes in the form of a `Size`: ``num * product of sizes // den + add``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch_dag_core.conversion.free_sizes import Formula, SizeOf


@dataclass(frozen=True)
class Form:
    """``num * product of leaves // den + add``, exactly.

    Attributes:
        whole: Whether the quotient is rounded down; else it is a fraction, computed in floats.
    """

    leaves: tuple[SizeOf, ...] = ()
    num: int = 1
    den: int = 1
    add: int = 0
    whole: bool = True

    @property
    def is_product(self) -> bool:
        """Whether nothing is divided or added."""
        return self.den == 1 and self.add == 0

    def reduced(self) -> Form:
        """Return the form without a common divisor above and below."""
        common = math.gcd(self.num, self.den) or 1
        form = replace(self, num=self.num // common, den=self.den // common)
        return replace(form, whole=True) if form.den == 1 else form


def form_of(formula: Formula) -> Form | None:
    """Return the form of a formula; None where it has another one."""
    if isinstance(formula, SizeOf):
        return Form((formula,))
    if not isinstance(formula, tuple):
        return Form(num=int(formula)) if formula == int(formula) else None
    rule = _RULES.get(formula[0])
    operands = [operand for operand in map(form_of, formula[1:]) if operand is not None]
    return rule(*operands) if rule is not None and len(operands) == len(formula) - 1 else None


def same_form(formula: Formula, value: Formula) -> bool:
    """Tell whether two formulas have the same value at all sizes, as far as their forms tell."""
    if formula == value:
        return True
    forms = form_of(formula), form_of(value)
    if forms[0] is None or forms[1] is None or not (forms[0].whole and forms[1].whole):
        return False
    parts = [(_extents(form), form.num, form.den, form.add) for form in forms if form is not None]
    return parts[0] == parts[1]


def _extents(form: Form) -> Counter[tuple[int, ...]]:
    """Return the values of the form's sizes in all recordings: those that agree in all of them count as one."""
    return Counter(leaf.values for leaf in form.leaves)


def _add(a: Form, b: Form) -> Form | None:
    if not (a.whole and b.whole):
        return None
    if not b.leaves and b.den == 1:
        return replace(a, add=a.add + b.num + b.add)
    if not a.leaves and a.den == 1:
        return _add(b, a)
    is_sum = a.leaves == b.leaves and a.den == b.den == 1
    return replace(a, num=a.num + b.num, add=a.add + b.add) if is_sum else None


def _negative(a: Form) -> Form | None:
    return replace(a, num=-a.num, add=-a.add) if a.den == 1 else None


def _subtract(a: Form, b: Form) -> Form | None:
    negative = _negative(b)
    return None if negative is None else _add(a, negative)


def _multiply(a: Form, b: Form) -> Form | None:
    if a.leaves and not b.leaves and b.is_product:
        a, b = b, a
    if not a.leaves and a.is_product and b.den == 1:
        return replace(b, num=a.num * b.num, add=a.num * b.add)
    if a.add or b.add or not (_is_exact(a) and _is_exact(b)):
        return None
    return Form((*a.leaves, *b.leaves), a.num * b.num, a.den * b.den, 0, a.whole and b.whole).reduced()


def _divide(a: Form, b: Form, *, whole: bool) -> Form | None:
    rest = Counter(a.leaves)
    rest.subtract(Counter(b.leaves))
    if not b.is_product or b.num <= 0 or min(rest.values(), default=0) < 0 or (a.add and (b.leaves or a.add % b.num)):
        return None
    if (whole and not a.whole) or (not whole and a.whole and a.den > 1):
        return None
    form = Form(tuple(rest.elements()), a.num, a.den * b.num, a.add // b.num, whole)
    return form.reduced()


def _is_exact(a: Form) -> bool:
    """Tell whether a float holds the form's value without rounding, and nothing was rounded down before."""
    return a.den == 1 or (not a.whole and a.den & (a.den - 1) == 0)


def _rounded_down(a: Form) -> Form | None:
    """Where the value is not negative, cutting it off is rounding it down."""
    return replace(a, whole=True) if a.den == 1 or (a.num >= 0 and a.add >= 0) else None


def _modulo(a: Form, b: Form) -> Form | None:
    """Only where it is 0, whatever the sizes."""
    return Form(num=0) if not b.leaves and b.is_product and a.is_product and b.num and a.num % b.num == 0 else None


Rule: TypeAlias = "Callable[..., Form | None]"
_RULES: dict[str, Rule] = {
    "add": _add, "sub": _subtract, "mul": _multiply, "mod": _modulo,
    "floordiv": lambda a, b: _divide(a, b, whole=True), "truediv": lambda a, b: _divide(a, b, whole=False),
    "trunc": _rounded_down, "floor": _rounded_down, "float": lambda a: a,
}  # fmt: skip
