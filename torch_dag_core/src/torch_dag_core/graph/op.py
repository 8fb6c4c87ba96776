"""The base class of vocabulary ops: a module whose constants are declared as fields."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, dataclass_transform, get_type_hints

from torch import nn

_REQUIRED = object()


@dataclass_transform(eq_default=False)
class Op(nn.Module):
    """A vertex module with declared constants and no other configuration.

    A subclass annotates its constants in the order of the torch function's own arguments and takes tensors
    positionally in ``forward``. Constants are values of `torch_dag_core.graph.values`.

    >>> class Roll(Op):
    ...     shifts: tuple[int, ...]
    ...     dims: tuple[int, ...] | None = None
    >>> Roll((1,), dims=(2,)).config()
    {'shifts': (1,), 'dims': (2,)}
    """

    fields: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {
            name: getattr(cls, name, _REQUIRED)
            for name, hint in inspect.get_annotations(cls).items()
            if "ClassVar" not in str(hint)
        }
        if "fields" not in cls.__dict__:
            cls.fields = {**cls.fields, **own}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        names = tuple(self.fields)
        if len(args) > len(names):
            message = f"{type(self).__name__} takes {len(names)} constants, got {len(args)}"
            raise TypeError(message)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name, default in self.fields.items():
            value = given.pop(name, default)
            if value is _REQUIRED:
                message = f"{type(self).__name__} needs {name!r}"
                raise TypeError(message)
            setattr(self, name, value)
        if given:
            message = f"{type(self).__name__} has no constant named {', '.join(map(repr, given))}"
            raise TypeError(message)

    def config(self) -> dict[str, Any]:
        """Return the constants by name, in declared order."""
        return {name: getattr(self, name) for name in self.fields}

    def extra_repr(self) -> str:
        """Show the constants that differ from their defaults."""
        shown = ((name, value) for name, value in self.config().items() if value != self.fields[name])
        return ", ".join(f"{name}={_shown(value)}" for name, value in shown)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return str(value) if not isinstance(value, str) else repr(value)


def field_types(op: type[Op]) -> dict[str, Any]:
    """Return the declared type of each constant of an op class."""
    hints = get_type_hints(op)
    return {name: hints[name] for name in op.fields}
