"""How ops read as Python: the record of one op, and what it is told of a call."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torch_dag_core.plugins.record_checks import MODULE_CLASS, OPTIONAL_CALLABLE, check_fields
from torch_dag_export.python.literals import literal

_MOST_OPERANDS = 8


@dataclass(frozen=True)
class Call:
    """One vertex that is written.

    Attributes:
        module: Its module.
        operands: The expressions of its operands.
        place: The expression of the module, or of the tensor of a `TensorHolder`, such as ``self.stem[0]``.
    """

    module: Any
    operands: tuple[str, ...]
    place: str

    @property
    def all(self) -> str:
        """The operands, separated by commas."""
        return ", ".join(self.operands)

    def literal(self, value: Any) -> str:
        """Return a constant of the op as Python; a `Slot` becomes its operand, a `Size` a product of their sizes."""
        return literal(value, self.operands)


@dataclass(frozen=True, kw_only=True)
class PythonForm:
    """How the vertices of one op are written.

    Attributes:
        target: Exact module class of the vertices.
        expression: Returns the Python expression of a call. None keeps the module: it is made in ``__init__`` by its
            class with the constants that its codec saves, and called on the operands.
        sources: Functions and classes that the expression uses, or the module's own class, in an order in which they
            can be defined; their source is copied into the file, so it may only use torch and each other.
    """

    target: type[nn.Module]
    expression: Callable[[Call], str] | None = None
    sources: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuse fields of the wrong kind."""
        check_fields(self, {"target": MODULE_CLASS, "expression": OPTIONAL_CALLABLE})

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted name of the class, for which no other plugin can have a form."""
        return (f"{self.target.__module__}.{self.target.__qualname__}",)


class _Constants(dict[str, str]):
    """The constants of an op as Python, by the names of its fields."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def __missing__(self, name: str) -> str:
        return self._call.literal(getattr(self._call.module, name))


def written_as(target: type[nn.Module], text: str, *sources: Any) -> PythonForm:
    """Return the form of an op whose expression is a format string.

    Args:
        target: The module class.
        text: ``{0}`` is the first operand (``None`` where an operand is missing), ``{all}`` all of them, ``{name}``
            the constant ``name`` of the op.
        sources: What the expression uses.
    """

    def expression(call: Call) -> str:
        operands = [*call.operands, *["None"] * (_MOST_OPERANDS - len(call.operands))]
        constants = _Constants(call)
        constants["all"] = call.all
        return string.Formatter().vformat(text, operands, constants)

    return PythonForm(target=target, expression=expression, sources=sources)


def arguments(*given: str, **keywords: str | None) -> str:
    """Return the arguments of a call as text; keywords that are None are left out."""
    named: Sequence[str] = [f"{name}={value}" for name, value in keywords.items() if value is not None]
    return ", ".join([*given, *named])
