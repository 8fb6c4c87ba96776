"""What the graph language consists of: one frozen record per op, looked up by key or by exact class."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from torch_dag_core.errors import DuplicateOpError, UnknownOpError
from torch_dag_core.plugins import record_checks as kinds
from torch_dag_core.plugins.calling import errors_attributed_to
from torch_dag_core.plugins.record_checks import check_fields

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = tuple[int, ...]
Examples: TypeAlias = "Callable[[], Iterable[tuple[nn.Module, tuple[Tensor, ...]]]]"
"""Returns pairs of a module and tensors that it can be called with; for tests (`torch_dag_core.testing`)."""


class ConfigCodec(Protocol):
    """Turns a module's configuration into constants and back; weights travel separately."""

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Return the constants (`torch_dag_core.graph.values`) that rebuild the module."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Return a module of this configuration; its weights are overwritten afterwards."""


class FlopsRule(Protocol):
    """FLOPs of one call; shapes may hold ints or differentiable scalars."""

    def __call__(
        self, module: nn.Module, inputs: Sequence[Sequence[Any]], outputs: Sequence[Sequence[Any]],
        parameters: Mapping[str, Sequence[Any]],
    ) -> Any:  # fmt: skip
        """Return 2 x multiply-accumulates of contractions plus one per elementwise result.

        A rule that knows the cost of some calls only returns NotImplemented for the others.
        """


@dataclass(frozen=True, kw_only=True)
class OpSpec:
    """One op of the vocabulary.

    Attributes:
        key: Stable name in files, ``namespace.op``.
        target: Exact module class of the vertex.
        codec: How the module is saved; None means that it runs but cannot be saved.
        functions: Names of torch functions that become this op, bound by signature (tensors first, then the
            fields in order).
        aliases: Keys under which older files may hold the op; they lie in the namespace of ``key``.
        flops: Cost rule; without one the cost is unknown, and one FLOP per output element is counted.
        expand: Returns a module that computes the same out of vocabulary ops, for composite ops.
        version: Version of the configuration; ``migrate(version, config)`` reads older ones.
        examples: Modules and inputs on which the contract of plugins is tested.
        owner: Distribution that registered the op; filled in by the registry.
    """

    key: str
    target: type[nn.Module]
    codec: ConfigCodec | None = None
    functions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    flops: FlopsRule | None = None
    expand: Callable[[nn.Module], nn.Module] | None = None
    version: int = 1
    migrate: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None
    examples: Examples | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong kind."""
        check_fields(self, _OP_FIELDS)
        namespace = self.key.partition(".")[0]
        if any(alias.partition(".")[0] != namespace for alias in self.aliases):
            message = f"aliases of the op {self.key!r} must lie in its namespace {namespace!r}, not {self.aliases}"
            raise ValueError(message)

    @property
    def names(self) -> tuple[str, ...]:
        """The key, and older keys."""
        return (self.key, *self.aliases)


@dataclass(frozen=True, kw_only=True)
class AtomicSpec:
    """A module class that is not simply traced through.

    Attributes:
        target: Exact class, or its dotted name (``package.module.Class``) where the class is not importable here.
        convert: ``convert(call, module, *args, **kwargs) -> Value`` emits vertices for one call; ``module`` is the
            graph's own copy. Without it the module itself becomes the vertex, and is saved if it is a registered op.
        trace_as: ``trace_as(module, *args, **kwargs)`` computes the same in a way that can be traced, and is traced
            instead of ``forward``. It may call ops of the vocabulary that it makes itself, and ``module``: that call
            goes to ``convert``.
        accepts: Tells of an instance whether the record holds for it; the others are traced through.
        examples: Modules and inputs on which the contract of plugins is tested.
        owner: Distribution that registered the class; filled in by the registry.
    """

    target: type[nn.Module] | str
    convert: Callable[..., Any] | None = None
    trace_as: Callable[..., Any] | None = None
    accepts: Callable[[nn.Module], bool] | None = None
    examples: Examples | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong kind."""
        check_fields(self, _ATOMIC_FIELDS)

    @property
    def name(self) -> str:
        """Dotted name of the class."""
        return self.target if isinstance(self.target, str) else qualified_name(self.target)

    @property
    def names(self) -> tuple[str, ...]:
        """The dotted name of the class."""
        return (self.name,)


def qualified_name(cls: type) -> str:
    """Return ``package.module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """Turns recorded calls of some functions into vertices.

    Attributes:
        functions: Names of the functions.
        normalize: ``normalize(call, *args, **kwargs) -> Value`` emits vertices, or returns NotImplemented to pass.
        examples: Modules that call the functions, and inputs, on which the contract of plugins is tested.
        owner: Distribution that added it; filled in by the registry.
    """

    functions: tuple[str, ...]
    normalize: Callable[..., Any]
    examples: Examples | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong kind."""
        check_fields(self, _NORMALIZER_FIELDS)

    @property
    def names(self) -> tuple[str, ...]:
        """The functions: which of two normalizers of one package is asked first would depend on file names."""
        return self.functions


_OP_FIELDS = {
    "key": kinds.OP_KEY,
    "target": kinds.MODULE_CLASS,
    "codec": kinds.CODEC,
    "functions": kinds.NAMES,
    "aliases": kinds.NAMES,
    "flops": kinds.OPTIONAL_CALLABLE,
    "expand": kinds.OPTIONAL_CALLABLE,
    "version": kinds.VERSION,
    "migrate": kinds.OPTIONAL_CALLABLE,
    "examples": kinds.OPTIONAL_CALLABLE,
}
_ATOMIC_FIELDS = {
    "target": kinds.CLASS_OR_NAME,
    "convert": kinds.OPTIONAL_CALLABLE,
    "trace_as": kinds.OPTIONAL_CALLABLE,
    "accepts": kinds.OPTIONAL_CALLABLE,
    "examples": kinds.OPTIONAL_CALLABLE,
}
_NORMALIZER_FIELDS = {
    "functions": kinds.SOME_NAMES, "normalize": kinds.CALLABLE, "examples": kinds.OPTIONAL_CALLABLE,
}  # fmt: skip


@dataclass
class Registry:
    """The ops, atomic modules and normalizers that one conversion or load works with."""

    _by_key: dict[str, OpSpec] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _by_class: dict[type[nn.Module], OpSpec] = field(default_factory=dict)
    _by_function: dict[str, OpSpec] = field(default_factory=dict)
    _atomic: dict[str, AtomicSpec] = field(default_factory=dict)
    _normalizers: dict[str, list[Normalizer]] = field(default_factory=dict)

    def add(self, spec: OpSpec, *, owner: str) -> None:
        """Add one op, or raise `DuplicateOpError` and leave the registry unchanged."""
        spec = replace(spec, owner=owner)
        for name in spec.names:
            self._refuse_duplicate(self.find(name), f"op key {name!r}", owner)
        self._refuse_duplicate(self._by_class.get(spec.target), f"module class {spec.target.__qualname__}", owner)
        for name in spec.functions:
            self._refuse_duplicate(self._by_function.get(name), f"function {name!r}", owner)
        self._by_key[spec.key] = spec
        self._keys.update(dict.fromkeys(spec.names, spec.key))
        self._by_class[spec.target] = spec
        self._by_function.update(dict.fromkeys(spec.functions, spec))

    def add_atomic(self, spec: AtomicSpec, *, owner: str) -> None:
        """Add one atomic module class, or raise `DuplicateOpError`."""
        self._refuse_duplicate(self._atomic.get(spec.name), f"atomic module {spec.name}", owner)
        self._atomic[spec.name] = replace(spec, owner=owner)

    def add_normalizer(self, normalizer: Normalizer, *, owner: str) -> None:
        """Add one normalizer; those added later are asked first."""
        normalizer = replace(normalizer, owner=owner)
        for name in normalizer.functions:
            self._normalizers.setdefault(name, []).insert(0, normalizer)

    @staticmethod
    def _refuse_duplicate(present: OpSpec | AtomicSpec | None, what: str, owner: str) -> None:
        if present is not None:
            message = f"{what} is registered by {present.owner!r} and again by {owner!r}; uninstall one of the two"
            raise DuplicateOpError(message)

    def get(self, key: str) -> OpSpec:
        """Return the op registered under ``key``, or under it as an older key.

        Raises:
            UnknownOpError: there is none; the message has close names.
        """
        spec = self.find(key)
        if spec is None:
            close = difflib.get_close_matches(key, self._by_key, n=3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            message = f"no op is registered under {key!r}{hint}"
            raise UnknownOpError(message)
        return spec

    def find(self, key: str) -> OpSpec | None:
        """Return the op registered under ``key``, or under it as an older key, or None."""
        return self._by_key.get(self._keys.get(key, ""))

    def for_module(self, module: nn.Module) -> OpSpec | None:
        """Return the op whose class is exactly the module's, or None."""
        return self._by_class.get(type(module))

    def for_class(self, target: type[nn.Module]) -> OpSpec | None:
        """Return the op whose class is exactly ``target``, or None."""
        return self._by_class.get(target)

    def for_function(self, name: str) -> OpSpec | None:
        """Return the op that takes the torch function of this name, or None."""
        return self._by_function.get(name)

    def atomic_for(self, module: nn.Module) -> AtomicSpec | None:
        """Return the atomic record whose class is exactly the module's and that accepts it, or None."""
        spec = self._atomic.get(qualified_name(type(module)))
        if spec is None or spec.accepts is None:
            return spec
        with errors_attributed_to(spec.owner, f"accepts() for {spec.name!r}"):
            return spec if spec.accepts(module) else None

    def normalizers_for(self, name: str) -> Sequence[Normalizer]:
        """Return the normalizers of the torch function of this name, latest first."""
        return self._normalizers.get(name, ())

    def ops(self) -> Iterable[OpSpec]:
        """Iterate over all ops in order of registration."""
        return self._by_key.values()

    def atomic_specs(self) -> Iterable[AtomicSpec]:
        """Iterate over all atomic modules in order of registration."""
        return self._atomic.values()

    def normalizers(self) -> Iterable[Normalizer]:
        """Iterate over all normalizers, each once."""
        return {id(one): one for chain in self._normalizers.values() for one in chain}.values()

    def copy(self) -> Registry:
        """Return an independent registry with the same content."""
        normalizers = {name: list(chain) for name, chain in self._normalizers.items()}
        return Registry(
            dict(self._by_key), dict(self._keys), dict(self._by_class), dict(self._by_function), dict(self._atomic),
            normalizers,
        )  # fmt: skip
