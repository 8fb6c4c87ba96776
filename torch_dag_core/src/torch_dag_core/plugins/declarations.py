"""How a package declares what it adds: records at module level, gathered when somebody asks for them.

A record stands in the module that it concerns: as a value (``CONV2D = declare("core.conv2d", nn.Conv2d, ...)``), as a
tuple of values, or attached to a class or function by a decorator (``@op("core.roll", ...)``). Importing a module
registers nothing; `gather` looks through a package for all records of one type.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from torch import nn

from torch_dag_core.errors import DuplicateOpError
from torch_dag_core.plugins.codecs import codec_for
from torch_dag_core.plugins.registry import ConfigCodec, Examples, FlopsRule, OpSpec

_ATTACHED = "__torch_dag_records__"


class Record(Protocol):
    """What a package declares; ``names`` are those that no second record of the package may have."""

    @property
    def names(self) -> tuple[str, ...]:
        """Keys, classes or functions that the record describes."""


R = TypeVar("R", bound=Record)
Thing = TypeVar("Thing", bound=Callable[..., Any])


def attach(thing: Thing, record: Record) -> Thing:
    """Attach a record to a class or function and return that; `gather` finds it in the module that defines it."""
    setattr(thing, _ATTACHED, (*vars(thing).get(_ATTACHED, ()), record))
    return thing


def gather(package: str, record_type: type[R]) -> tuple[R, ...]:
    """Return the records that a package declares, each once.

    The modules of the package, and those of the packages within it, are imported in order of their names; the records
    of one module come in the order in which it binds them. Of classes and functions only those that the module itself
    defines count, so it may import others freely; a record that is a bare value counts wherever a module binds it.

    Args:
        package: Dotted name of a package or of a single module.
        record_type: The type of the records: `OpSpec`, `AtomicSpec`, `Normalizer`, or the record of another plugin.

    Raises:
        DuplicateOpError: two records have a name in common.
    """
    found: dict[int, R] = {}
    homes: dict[str, str] = {}
    for module in _modules(importlib.import_module(package)):
        for record in _records(module, record_type):
            if id(record) not in found:
                found[id(record)] = record
                _take_names(record, module.__name__, homes)
    return tuple(found.values())


def _take_names(record: Record, module: str, homes: dict[str, str]) -> None:
    for name in record.names:
        if name in homes:
            message = f"{name!r} is declared in {module} and in {homes[name]}; remove or rename one of the two"
            raise DuplicateOpError(message)
        homes[name] = module


def _modules(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    for info in sorted(pkgutil.iter_modules(getattr(module, "__path__", ())), key=lambda info: info.name):
        yield from _modules(importlib.import_module(f"{module.__name__}.{info.name}"))


def _records(module: ModuleType, record_type: type[R]) -> Iterator[R]:
    for value in tuple(vars(module).values()):
        candidates = value if isinstance(value, tuple) else (value,)
        if isinstance(value, (type, FunctionType)) and value.__module__ == module.__name__:
            candidates = vars(value).get(_ATTACHED, ())
        yield from (candidate for candidate in candidates if isinstance(candidate, record_type))


class OpFacts(TypedDict, total=False):
    """The optional fields of an `OpSpec`."""

    codec: ConfigCodec | None
    functions: tuple[str, ...]
    aliases: tuple[str, ...]
    flops: FlopsRule | None
    expand: Callable[[nn.Module], nn.Module] | None
    version: int
    migrate: Callable[[int, dict[str, Any]], dict[str, Any]] | None
    examples: Examples | None


def declare(key: str, target: type[nn.Module], **facts: Unpack[OpFacts]) -> OpSpec:
    """Return the record of an op; without a codec given, the class is saved by `codec_for`.

    Args:
        key: Stable name in files, ``namespace.op``.
        target: Module class of the vertices.
        facts: Other fields of `OpSpec`.
    """
    if "codec" not in facts:
        facts["codec"] = codec_for(target)
    return OpSpec(key=key, target=target, **facts)


Module = TypeVar("Module", bound=type[nn.Module])


def op(key: str, **facts: Unpack[OpFacts]) -> Callable[[Module], Module]:
    """Declare the decorated module class as an op; arguments as for `declare`."""

    def decorate(target: Module) -> Module:
        return attach(target, declare(key, target, **facts))

    return decorate
