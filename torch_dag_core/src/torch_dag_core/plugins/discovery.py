"""Which plugins are installed, which of them are wanted, and how one is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from torch_dag_core.errors import PluginLoadError
from torch_dag_core.plugins.hookspecs import HOOK_API, PROJECT

VARIABLE = "TORCH_DAG_PLUGINS"
CORE = "core"
CORE_DISTRIBUTION = "torch-dag-core"
RESERVED = (CORE, "user")
"""Names that no plugin may have: the core's own, and the namespace of the ops that users register."""
PASSED_ON = (KeyboardInterrupt, GeneratorExit)
"""What is raised through a plugin's code without being the plugin's failure; anything else it raises is one."""
_SHOWN = 500


@dataclass(frozen=True)
class Origin:
    """A plugin's name and the distribution that brought it."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Candidate:
    """An installed plugin that is not imported yet.

    Attributes:
        name: Its name, unique among all candidates.
        entry_points: What it is loaded from; more than one means that its name is taken twice.
        problem: Why it is not loaded, whatever is in it; empty for most.
    """

    name: str
    entry_points: tuple[EntryPoint, ...]
    problem: str = ""

    @property
    def origin(self) -> Origin:
        """Where the plugin comes from."""
        found = [point.dist for point in self.entry_points if point.dist is not None]
        names = " and ".join(distribution.name for distribution in found)
        versions = " and ".join(distribution.version for distribution in found)
        return Origin(self.name, names or "unknown distribution", versions or "of unknown version")

    def load(self) -> Any:
        """Import the plugin.

        Raises:
            PluginLoadError: it cannot be imported, has a reserved name, or was written for other hooks than this
                core's.
        """
        if self.problem:
            raise load_error(self.origin, self.problem)
        if len(self.entry_points) > 1:
            raise load_error(self.origin, "is one name for two plugins; uninstall one of them")
        try:
            plugin = self.entry_points[0].load()
        except PASSED_ON:
            raise
        except BaseException as error:
            raise load_error(self.origin, f"cannot be imported: {one_line(error)}") from error
        wants = getattr(plugin, "TORCH_DAG_HOOK_API", HOOK_API)
        if wants != HOOK_API:
            what = f"is written for version {wants} of the hooks, this torch-dag-core has version {HOOK_API}"
            raise load_error(self.origin, f"{what}; install releases that fit each other")
        return plugin


def distribution_version(name: str) -> str:
    """Return the installed version of a distribution, empty where there is none of this name."""
    try:
        return version(name) if name else ""
    except PackageNotFoundError:
        return ""


def one_line(error: BaseException) -> str:
    """Return class and message of a plugin's error in one line; the error's own ``__str__`` may fail."""
    try:
        text = " ".join(str(error).split())
    except PASSED_ON:
        raise
    except BaseException:  # noqa: BLE001 - an error that cannot be shown is still that plugin's
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text[:_SHOWN]}"


def load_error(origin: Origin, what: str) -> PluginLoadError:
    """Return the error that says, in one line, what is wrong with a plugin and how to go on without it."""
    return PluginLoadError(origin.name, f"{origin} {' '.join(what.split())}. {way_out(origin.name)}")


def way_out(name: str) -> str:
    """Say how to do without one plugin."""
    others = ",".join(candidate.name for candidate in installed() if candidate.name != name)
    return f"To do without it, uninstall it or set {VARIABLE}={others or repr('')}"


def installed() -> tuple[Candidate, ...]:
    """List the installed plugins by name, without importing any.

    A plugin that takes a reserved name is listed as ``NAME@DISTRIBUTION``, so that the name keeps its meaning.
    """
    by_name: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=PROJECT):
        name = f"{point.name}@{_distribution(point)}" if _takes_reserved_name(point) else point.name
        by_name.setdefault(name, []).append(point)
    return tuple(Candidate(name, tuple(points), _problem(points[0])) for name, points in sorted(by_name.items()))


def _problem(point: EntryPoint) -> str:
    what = f"is called {point.name!r}, a name that torch-dag keeps for itself; rename its entry point"
    return what if _takes_reserved_name(point) else ""


def _takes_reserved_name(point: EntryPoint) -> bool:
    return point.name in RESERVED and _distribution(point) != CORE_DISTRIBUTION


def _distribution(point: EntryPoint) -> str:
    """Return the normalized name of the distribution that an entry point belongs to."""
    return re.sub(r"[-_.]+", "-", point.dist.name).lower() if point.dist is not None else "unknown"


def wanted(candidates: Iterable[Candidate]) -> frozenset[str]:
    """Return the names that the environment variable ``TORCH_DAG_PLUGINS`` lets through.

    Raises:
        PluginLoadError: the variable names a plugin that is not installed.
    """
    names = [candidate.name for candidate in candidates]
    listed = os.environ.get(VARIABLE)
    if listed is None:
        return frozenset(names)
    chosen = [name.strip() for name in listed.split(",") if name.strip()]
    for name in chosen:
        if name not in names:
            message = (
                f"{VARIABLE} names the plugin {name!r}, which is not installed; "
                f"installed are: {', '.join(names) or 'none'}"
            )
            raise PluginLoadError(name, message)
    return frozenset(chosen)
