"""Plugins: loaded at first use, each kept apart from the others' mistakes.

A plugin that cannot be imported or misuses a hook is left out, warned of once (`PluginWarning`), listed by
`list_plugins`, and its error is raised by `require` when something needs it. ``TORCH_DAG_PLUGINS`` unset, empty or a
list with commas means all plugins, none, only these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from torch_dag_core.errors import PluginError, PluginLoadError
from torch_dag_core.plugins.discovery import CORE, VARIABLE, Origin
from torch_dag_core.plugins.host import PluginHost
from torch_dag_core.plugins.registry import Registry

T = TypeVar("T")


@dataclass(frozen=True)
class PluginInfo:
    """One installed plugin: the hooks it implements, or why it does not take part."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: PluginError | None = None
    disabled: bool = False


class _Current:
    """The core's own plugin, and the host of this process once it is complete."""

    core: ModuleType | None = None
    host: PluginHost | None = None
    loading = False
    lock = threading.RLock()


@contextmanager
def _loading() -> Iterator[None]:
    if _Current.loading:
        message = "a plugin asks for the plugins while they are loaded; let it ask inside a function that runs later"
        raise PluginError(CORE, message)
    _Current.loading = True
    try:
        yield
    finally:
        _Current.loading = False


def _host() -> PluginHost:
    with _Current.lock:
        if _Current.host is None:
            with _loading():
                _Current.host = PluginHost(_core_plugin())
        return _Current.host


def set_core_plugin(plugin: ModuleType) -> None:
    """Name the module with the core's own hooks, which is loaded whatever ``TORCH_DAG_PLUGINS`` says.

    The package does so when it is imported: an entry point could be taken by another distribution, and is missing
    where the package runs without its metadata, as in a frozen application.
    """
    with _Current.lock:
        _Current.core, _Current.host = plugin, None


def _core_plugin() -> ModuleType:
    if _Current.core is None:
        message = (
            "the core's own plugin is not there yet: torch_dag_core is still being imported or its installation is "
            "incomplete; ask for plugins after the import, or reinstall torch-dag-core"
        )
        raise PluginLoadError(CORE, message)
    return _Current.core


def plugin_manager() -> pluggy.PluginManager:
    """Return the manager with all plugins registered, loading them at the first call."""
    host = _host()
    host.warn()
    return host.manager


def default_registry() -> Registry:
    """Return the registry of the core and all plugins, built at the first call.

    A plugin that fails, or adds what the core or a plugin before it has, adds nothing and is warned of.
    """
    host = _host()
    with _Current.lock, _loading():
        registry = host.registry
    host.warn()
    return registry


def contributions(hook: str, kind: type[T], **arguments: Any) -> list[tuple[str, T]]:
    """Return what the core and all plugins add through a hook, each item with the distribution it comes from.

    Args:
        hook: Name of the hook.
        kind: What it collects.
        **arguments: What the hook is called with.
    """
    host = _host()
    found = host.contributions(hook, kind, **arguments)
    host.warn()
    return found


def named_contributions(hook: str, kind: type[T], *, taken: Collection[str] = ()) -> dict[str, T]:
    """Return what the core and all plugins add through a hook, by the items' own ``name``; see `by_key`."""
    return {name: item for name, (_, item) in by_key(hook, kind, taken=taken).items()}


def by_key(
    hook: str, kind: type[T], keys: Callable[[T], Iterable[str]] | None = None, *, taken: Collection[str] = ()
) -> dict[str, tuple[str, T]]:
    """Return what the core and all plugins add through a hook by key, each item with its distribution.

    A key that the core, or an earlier plugin, has already is left out and its plugin is reported.

    Args:
        hook: Name of the hook.
        kind: What it collects.
        keys: Tells the keys of an item; its ``name`` by default.
        taken: Keys that are not to be given away.
    """
    host = _host()
    found = host.keyed(hook, kind, keys or _name, taken)
    host.warn()
    return found


def _name(item: Any) -> tuple[Any]:
    return (getattr(item, "name", None),)


def first_answer(hook: str, kind: type[T], **arguments: Any) -> T | None:
    """Return the first answer to a hook other than None, or None; plugins are asked by name, the core last.

    Raises:
        PluginError: a plugin raised and nobody after it answered.
    """
    host = _host()
    answer = host.first(hook, kind, **arguments)
    host.warn()
    return answer


def add_hookspecs(namespace: Any) -> None:
    """Add the hook specs of a plugin, such as its ``hookspecs`` module; adding them again does nothing."""
    host = _host()
    host.add_hookspecs(namespace)
    host.warn()


def list_plugins() -> tuple[PluginInfo, ...]:
    """List the core and every installed plugin by name, with those that failed or are switched off."""
    host = _host()
    on = [_info(host, origin) for origin in host.origins.values()]
    off = [PluginInfo(origin.name, origin.distribution, origin.version, disabled=True) for origin in host.disabled]
    return (on[0], *sorted([*on[1:], *off], key=lambda info: info.name))


def _info(host: PluginHost, origin: Origin) -> PluginInfo:
    hooks = tuple(host.hooks(origin.name)) if host.manager.has_plugin(origin.name) else ()
    return PluginInfo(origin.name, origin.distribution, origin.version, hooks, host.errors.get(origin.name))


def require(name: str) -> None:
    """Make sure that a plugin, named by itself or its distribution, takes part.

    Raises:
        PluginLoadError: it is not installed, is switched off, or failed; the message says which.
    """
    for info in list_plugins():
        if name in (info.name, info.distribution):
            if info.error is not None:
                raise PluginLoadError(info.name, str(info.error)) from info.error
            if info.disabled:
                message = f"plugin {info.name!r} ({info.distribution} {info.version}) is switched off by {VARIABLE}"
                raise PluginLoadError(info.name, f"{message}; add it to that list or unset the variable")
            return
    message = f"no plugin or distribution named {name!r} is installed; try: pip install {name}"
    raise PluginLoadError(name, message)


def reload_plugins() -> None:
    """Forget all plugins and the default registry; the next use looks for them anew."""
    with _Current.lock:
        _Current.host = None
