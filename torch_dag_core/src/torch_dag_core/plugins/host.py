"""The loaded plugins: each hook call is made plugin by plugin, so that an error always has a name."""

from __future__ import annotations

import difflib
import reprlib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from torch_dag_core.errors import DuplicateOpError, PluginError, PluginLoadError, PluginWarning, TorchDagError
from torch_dag_core.plugins import hookspecs
from torch_dag_core.plugins.discovery import (
    CORE,
    CORE_DISTRIBUTION,
    PASSED_ON,
    Candidate,
    Origin,
    distribution_version,
    installed,
    load_error,
    one_line,
    wanted,
    way_out,
)
from torch_dag_core.plugins.hookspecs import PROJECT
from torch_dag_core.plugins.record_checks import foreign_class
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry

T = TypeVar("T")

_REGISTRY_HOOKS: tuple[tuple[str, type[Any], Callable[..., None]], ...] = (
    ("torch_dag_ops", OpSpec, Registry.add),
    ("torch_dag_atomic_modules", AtomicSpec, Registry.add_atomic),
    ("torch_dag_normalizers", Normalizer, Registry.add_normalizer),
)


class PluginHost:
    """The plugins of this process; building it imports them, and one that fails is kept as an error, not raised."""

    def __init__(self, core: ModuleType) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.manager.register(core, CORE)
        self.origins = {CORE: Origin(CORE, CORE_DISTRIBUTION, distribution_version(CORE_DISTRIBUTION) or "from source")}
        self.disabled: list[Origin] = []
        self.errors: dict[str, PluginError] = {}
        self._unreported: list[PluginError] = []
        self._added_specs: list[Any] = []
        self._load(installed())

    # Loading ---------------------------------------------------------------------------------------------------

    def _load(self, candidates: Iterable[Candidate]) -> None:
        candidates = tuple(candidates)
        chosen = wanted(candidates)
        self.disabled = [candidate.origin for candidate in candidates if candidate.name not in chosen]
        for candidate in candidates:
            if candidate.name in chosen:
                self._add(candidate)
        for name in self.names():
            self._refuse_unknown_hooks(name)

    def _add(self, candidate: Candidate) -> None:
        self.origins[candidate.name] = candidate.origin
        try:
            self.manager.register(candidate.load(), candidate.name)
        except PluginLoadError as error:
            self.report(error)
        except ValueError as error:
            self._drop(candidate.name, f"is the same module as another plugin: {error}", error)
        except pluggy.PluginValidationError as error:
            self._drop(candidate.name, f"does not fit a hook: {error}", error)
        except PASSED_ON:
            raise
        except BaseException as error:  # noqa: BLE001 - looking through a plugin runs its code
            self._drop(candidate.name, f"cannot be looked into: {one_line(error)}", error)

    def _refuse_unknown_hooks(self, name: str) -> None:
        plugin = self.manager.get_plugin(name)
        for caller in self.manager.get_hookcallers(plugin) or ():
            required = any(impl.plugin is plugin and not impl.optionalhook for impl in caller.get_hookimpls())
            if required and not caller.has_spec():
                close = difflib.get_close_matches(caller.name, self.hooks(), n=2)
                hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
                what = (
                    f"implements {caller.name!r}, which is no hook; {hint}one of another plugin needs optionalhook=True"
                )
                self._drop(name, what)
                return

    def _drop(self, name: str, what: str, cause: BaseException | None = None) -> None:
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        error = load_error(self.origins[name], what)
        error.__cause__ = cause
        self.report(error)

    def add_hookspecs(self, namespace: Any) -> None:
        """Add a plugin's own hook specs, once; a plugin that implements them with wrong arguments is dropped."""
        if namespace in self._added_specs:
            return
        # pluggy stores specs before it verifies who implements them; a throw-away manager verifies first.
        trial = pluggy.PluginManager(PROJECT)
        trial.add_hookspecs(namespace)
        for name, plugin in self.manager.list_name_plugin():
            try:
                trial.register(plugin, name)
            except pluggy.PluginValidationError as error:
                self._drop(name, f"does not fit a hook: {error}", error)
        self.manager.add_hookspecs(namespace)
        self._added_specs.append(namespace)

    # Asking ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """List the plugins that take part: the core, then the others by name."""
        return [name for name, _ in self.manager.list_name_plugin()]

    def hooks(self, name: str | None = None) -> list[str]:
        """List the hooks that exist, or those that one plugin implements."""
        if name is None:
            return sorted(hook for hook, caller in vars(self.manager.hook).items() if caller.has_spec())
        return sorted(caller.name for caller in self.manager.get_hookcallers(self.manager.get_plugin(name)) or ())

    def _call(self, name: str, hook: str, **arguments: Any) -> Any:
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name]
        return self.manager.subset_hook_caller(hook, others)(**arguments)

    def _hook_error(self, name: str, hook: str, error: BaseException) -> PluginError:
        kind, _, text = one_line(error).partition(": ")
        return self._error(name, f"raised {kind} in {hook}: {text}")

    def _error(self, name: str, what: str) -> PluginError:
        return PluginError(name, f"{self.origins[name]} {what}. {way_out(name)}")

    def _check(self, name: str, hook: str, item: Any, kind: type[T]) -> T:
        if not isinstance(item, kind):
            got = f"a {type(item).__name__} ({reprlib.repr(item)})"
            raise self._error(name, f"returned {got} from {hook}, not a {kind.__name__}")
        return item

    def collect(self, name: str, hook: str, kind: type[T], **arguments: Any) -> list[T]:
        """Return what one plugin adds through a hook.

        Raises:
            PluginError: the plugin raised, or returned anything but a collection of ``kind``.
        """
        try:
            # Generators run here, where it is still known whose they are.
            items = [
                item for returned in self._call(name, hook, **arguments) if returned is not None for item in returned
            ]
        except PASSED_ON:
            raise
        except BaseException as error:
            raise self._hook_error(name, hook, error) from error
        return [self._check(name, hook, item, kind) for item in items]

    def _additions(self, hook: str, kind: type[T], **arguments: Any) -> Iterator[tuple[str, T]]:
        """Iterate over what all plugins add through a hook, each with its plugin; a failing plugin is reported."""
        for name in self.names():
            try:
                items = self.collect(name, hook, kind, **arguments)
            except PluginError as error:
                self.report(error)
                continue
            yield from ((name, item) for item in items)

    def contributions(self, hook: str, kind: type[T], **arguments: Any) -> list[tuple[str, T]]:
        """Return what all plugins add through a hook, each with its distribution."""
        return [(self.origins[name].distribution, item) for name, item in self._additions(hook, kind, **arguments)]

    def keyed(
        self, hook: str, kind: type[T], keys: Callable[[T], Iterable[Any]], taken: Collection[str]
    ) -> dict[str, tuple[str, T]]:
        """Return what `contributions` does by the items' keys; a key that an earlier plugin has is reported."""
        found: dict[str, tuple[str, T]] = {}
        owners: dict[str, Origin | str] = dict.fromkeys(taken, "torch-dag itself")
        for plugin, item in self._additions(hook, kind):
            for key in keys(item):
                if not isinstance(key, str) or not key:
                    self.report(self._error(plugin, f"adds a {kind.__name__} without a name through {hook}"))
                elif key in owners:
                    what = f"adds the {kind.__name__} {key!r}, which {owners[key]} has; rename one or uninstall it"
                    self.report(self._error(plugin, what))
                else:
                    owners[key] = origin = self.origins[plugin]
                    found[key] = (origin.distribution, item)
        return found

    def first(self, hook: str, kind: type[T], **arguments: Any) -> T | None:
        """Return the first answer other than None, or None; plugins are asked by name, the core last.

        Raises:
            PluginError: a plugin raised and nobody after it answered.
            TorchDagError: a plugin raised it on purpose, for the caller.
        """
        failure: PluginError | None = None
        for name in sorted(self.names(), key=lambda name: (name == CORE, name)):
            try:
                answer = self._answer(name, hook, kind, **arguments)
            except PluginError as error:
                failure = failure or error
                continue
            if answer is not None:
                if failure is not None:
                    self.report(failure)
                return answer
        if failure is not None:
            raise failure
        return None

    def _answer(self, name: str, hook: str, kind: type[T], **arguments: Any) -> T | None:
        try:
            answer = self._call(name, hook, **arguments)
        except (TorchDagError, *PASSED_ON):
            raise
        except BaseException as error:
            raise self._hook_error(name, hook, error) from error
        return None if answer is None else self._check(name, hook, answer, kind)

    @cached_property
    def registry(self) -> Registry:
        """The registry of all plugins; one whose hooks fail adds nothing at all to it."""
        registry = Registry()
        for name in self.names():
            try:
                registry = self._extended(registry, name)
            except PluginError as error:
                self.report(error)
        return registry

    def _extended(self, registry: Registry, name: str) -> Registry:
        """Return the registry with all that one plugin adds, or raise and add nothing."""
        extended = registry.copy()
        for hook, kind, add in _REGISTRY_HOOKS:
            for item in self.collect(name, hook, kind):
                self._refuse_foreign_key(name, item)
                try:
                    add(extended, item, owner=self.origins[name].distribution)
                except DuplicateOpError as error:
                    raise self._error(name, f"is left out: {error}") from error
                self._refuse_foreign_class(name, item, extended)
        return extended

    def _refuse_foreign_key(self, name: str, item: Any) -> None:
        """Keep each plugin to the namespace of its own name, so that none can take the key of another."""
        own = name.replace("-", "_")
        key = getattr(item, "key", None)
        if key is not None and key.partition(".")[0] != own:
            what = f"adds the op {key!r} outside of its namespace; call it '{own}.{key.rpartition('.')[2]}'"
            raise self._error(name, what)

    def _refuse_foreign_class(self, name: str, item: Any, registry: Registry) -> None:
        """Keep a plugin from deciding how the classes of torch, of the core, or of another plugin are converted."""
        if isinstance(item, AtomicSpec) and name != CORE:
            owner = foreign_class(item.name, registry.ops(), self.origins[name].distribution)
            if owner:
                what = (
                    f"adds {item.name} as an atomic module, which is a class of {owner}; register a class of your own"
                )
                raise self._error(name, what)

    # Reporting -------------------------------------------------------------------------------------------------

    def report(self, error: PluginError) -> None:
        """Keep the first error of a plugin; an error of the core's own is no matter of plugins and is raised."""
        if error.plugin == CORE:
            raise error
        if error.plugin not in self.errors:
            self.errors[error.plugin] = error
            self._unreported.append(error)

    def warn(self) -> None:
        """Warn of every error that was not warned of before."""
        while self._unreported:
            warnings.warn(str(self._unreported.pop(0)), PluginWarning, stacklevel=3)
