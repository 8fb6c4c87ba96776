"""Polynomials in the sizes of axes: the form in which FLOPs and parameter counts are computed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_dag_pruning.axes import Axis, Fixed, size

Monomial = tuple[int, ...]
"""A product of variables: their indices in ascending order, repeated for powers."""


class Polynomial:
    """A sum of monomials with coefficients. Supports ``+``, ``-`` and ``*`` with numbers and other polynomials."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Any]) -> None:
        self.terms = terms

    def __add__(self, other: Any) -> Polynomial:
        terms = dict(self.terms)
        for monomial, coefficient in polynomial(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Polynomial(terms)

    def __mul__(self, other: Any) -> Polynomial:
        terms: dict[Monomial, Any] = {}
        for theirs, b in polynomial(other).terms.items():
            for mine, a in self.terms.items():
                monomial = tuple(sorted(mine + theirs))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Polynomial(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Polynomial:
        return self + polynomial(other) * -1

    def __rsub__(self, other: Any) -> Polynomial:
        return polynomial(other) - self


def polynomial(value: Any) -> Polynomial:
    """Return a number as a constant polynomial, and a polynomial as it is."""
    return value if isinstance(value, Polynomial) else Polynomial({(): value})


@dataclass
class Variables:
    """Numbers the distinct axes that can shrink, which are the variables of the polynomials."""

    find: Callable[[Axis], Axis]
    axes: list[Axis] = field(default_factory=list)
    _numbers: dict[Axis, int] = field(default_factory=dict)

    def size(self, axis: Axis) -> Any:
        """Return the size of an axis: an int if it is Fixed, else a polynomial of one variable."""
        axis = self.find(axis)
        if isinstance(axis, Fixed):
            return axis.n
        if axis not in self._numbers:
            self._numbers[axis] = len(self.axes)
            self.axes.append(axis)
        return Polynomial({(self._numbers[axis],): 1})

    def sizes(self, axes: Iterable[Axis]) -> list[Any]:
        """Return the size of each axis of a tensor."""
        return [self.size(axis) for axis in axes]


class CostModel:
    """A polynomial prepared for many evaluations: exact for ints, differentiable for tensors."""

    def __init__(self, total: Polynomial, axes: Sequence[Axis]) -> None:
        self.constant = total.terms.get((), 0)
        self.terms = [(m, c) for m, c in total.terms.items() if m and c]
        self.axes = list(axes)
        self._tables: tuple[Tensor, Tensor] | None = None

    def __call__(self, counts: Mapping[int, Any]) -> Any:
        """Return the value of the polynomial when each atom keeps ``counts[atom.id]`` slots."""
        values = [size(axis, counts) for axis in self.axes]
        tensor = next((value for value in values if isinstance(value, Tensor)), None)
        if tensor is not None:
            return self._differentiable(values, tensor)
        return self.constant + sum(c * math.prod([values[i] for i in m]) for m, c in self.terms)

    def _differentiable(self, values: Sequence[Any], like: Tensor) -> Tensor:
        """Evaluate with a few tensor operations, whatever the number of terms."""
        stacked = torch.stack([torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in (*values, 1)])
        factors, coefficients = self._table(len(values), like)
        result: Tensor = (stacked[factors].prod(1) * coefficients).sum() + self.constant
        return result

    def _table(self, one: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the factors of each term (terms, degree) and the coefficients (terms,).

        Terms of a lower degree are filled up with the index ``one``, at which the caller has stored the number 1.
        """
        if self._tables is None or self._tables[1].device != like.device or self._tables[1].dtype != like.dtype:
            width = max((len(m) for m, _ in self.terms), default=1)
            factors = torch.tensor([[*m, *[one] * (width - len(m))] for m, _ in self.terms], device=like.device)
            coefficients = torch.tensor([c for _, c in self.terms], dtype=like.dtype, device=like.device)
            self._tables = (factors.reshape(-1, width), coefficients)
        return self._tables


def total(polynomials: Iterable[Polynomial]) -> Polynomial:
    """Return the sum of many polynomials, in time linear in their terms."""
    terms: Counter[Monomial] = Counter()
    for each in polynomials:
        for monomial, coefficient in each.terms.items():
            terms[monomial] += coefficient
    return Polynomial(terms)
