"""Measured times, kept in a file so that each op is measured once on a device."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_dag_core.atomic_files import write_text
from torch_dag_pruning.documents import Document
from torch_dag_pruning.errors import LatencyError

TABLE = Document("torch_dag_latency", 1, "a table", "is no table of latencies", LatencyError)


@dataclass
class LatencyTable:
    """Seconds by device and by op; see `key_of` for what ops are told apart by.

    Attributes:
        path: The file; None keeps the times in memory only.
    """

    path: Path | None = None
    _devices: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the file, if there is one.

        Raises:
            LatencyError: it is not a table, or has a newer format.
        """
        if self.path is not None and self.path.exists():
            self._devices = _read(self.path)

    def of(self, device: str) -> dict[str, float]:
        """Return the times on a device, by op; what is added to them is written by `save`."""
        return self._devices.setdefault(device, {})

    def save(self) -> None:
        """Write the file, if there is a path; the times that others wrote to it meanwhile stay.

        Raises:
            LatencyError: the file is not a table.
            OSError: it cannot be written.
        """
        if self.path is None:
            return
        written = _read(self.path) if self.path.exists() else {}
        devices = {name: written.get(name, {}) | self._devices.get(name, {}) for name in {**written, **self._devices}}
        document = {TABLE.key: TABLE.version, "devices": devices}
        write_text(self.path, json.dumps(document, indent=1, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, dict[str, float]]:
    devices: Any = TABLE.read(path).get("devices")
    if not _is_devices(devices):
        raise TABLE.refusal(path, "it has no 'devices' with seconds by device and op")
    found: dict[str, dict[str, float]] = devices
    return found


def _is_devices(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(times, dict) and all(map(_is_time, times.values())) for times in value.values()
    )


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
