"""The file of a survey: JSON lines, a header and one row for each model, replaced as a whole at every change."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from torch_dag_core.atomic_files import write_text
from torch_dag_core.cli.coverage.examination import Row
from torch_dag_core.errors import TorchDagError

_FORMAT = 1
_KEY = "torch_dag_coverage"


class CoverageFileError(TorchDagError):
    """A file was not written by ``torch-dag coverage``."""


@dataclass(frozen=True)
class Header:
    """What a survey was made with.

    Attributes:
        source: Prefix of the library.
        versions: Releases by distribution.
        machine: Processor, memory and threads.
        date: When it was begun, as YYYY-MM-DD.
        limits: The options that decide what was examined and how, by name.
    """

    source: str
    versions: Mapping[str, str]
    machine: str
    date: str
    limits: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, source: str, distributions: Sequence[str], limits: Mapping[str, Any]) -> Header:
        """Return the header of a survey that begins now, in this environment."""
        versions = {"python": platform.python_version(), **installed_versions(*distributions)}
        return cls(source, versions, machine(), f"{datetime.now(UTC):%Y-%m-%d}", dict(limits))

    def changes(self, other: Header) -> list[str]:
        """Return what differs in another environment, each as text; the date and the limits do not count."""
        names = sorted({*self.versions, *other.versions})
        found = [] if self.source == other.source else [f"{self.source} is now {other.source}"]
        for name in names:
            old, new = self.versions.get(name, "not installed"), other.versions.get(name, "not installed")
            found += [f"{name} {old} is now {new}"] if old != new else []
        return found


@dataclass
class CoverageFile:
    """The rows of a survey by model, and the file that holds them.

    Attributes:
        parameters: Number of parameters of models, examined or not; None where a model cannot be built without memory.
    """

    path: Path
    header: Header
    rows: dict[str, Row] = field(default_factory=dict)
    parameters: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> CoverageFile:
        """Read a file.

        Raises:
            CoverageFileError: it is not of this kind, or has a newer format.
        """
        try:
            first, *rest = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            newer = first[_KEY] != _FORMAT
            header = Header(**first["header"])
            found = cls(path, header, {row["model"]: row for row in rest}, first["parameters"])
        except (ValueError, KeyError, TypeError) as error:
            message = f"{str(path)!r} was not written by `torch-dag coverage`"
            raise CoverageFileError(message) from error
        if newer:
            message = f"{str(path)!r} has another format than this release writes; examine the models anew"
            raise CoverageFileError(message)
        return found

    def write(self) -> None:
        """Replace the file."""
        first = {_KEY: _FORMAT, "header": vars(self.header), "parameters": self.parameters}
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in (first, *self.rows.values())))

    def add(self, row: Row) -> None:
        """Add the row of a model, and replace the file."""
        self.rows[row["model"]] = row
        self.write()


def installed_versions(*distributions: str) -> dict[str, str]:
    """Return the releases of torch, of torch-dag and its plugins, and of libraries; without those not installed."""
    names = {each.name for each in metadata.distributions() if (each.name or "").startswith("torch-dag-")}
    found = {}
    for name in sorted({"torch", *distributions, *names}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return processor, cores, memory and torch's threads in words."""
    try:
        total = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory, "
    except (ValueError, OSError, AttributeError):  # not on Windows
        total = ""
    threads = torch.get_num_threads()
    cores = os.cpu_count() or 1
    return f"{_processor()}, {cores} cores, {total}{threads} thread{'' if threads == 1 else 's'} for each model"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0].strip() if names else platform.processor() or platform.machine()
