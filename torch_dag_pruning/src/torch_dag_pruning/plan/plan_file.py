"""Plans read from JSON files, which are checked in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch_dag_pruning.errors import PlanError

_KEY = "torch_dag_plan"


def read_document(path: Path, newest: int) -> dict[str, dict[str, Any]]:
    """Return ``{orbit: {"size": int, "kept": [int, ...]}}`` of a plan file.

    Raises:
        PlanError: the file is not a plan, or one of a format above ``newest``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        message = f"{path} is not a plan: {error}"
        raise PlanError(message) from error
    version = document.get(_KEY) if isinstance(document, dict) else None
    if type(version) is not int:
        message = f"{path} is not a plan: it has no {_KEY!r}"
        raise PlanError(message)
    if version > newest:
        message = f"{path} is a plan of format {version}, this version reads up to {newest}; upgrade torch-dag-pruning"
        raise PlanError(message)
    orbits = document.get("orbits")
    if not isinstance(orbits, dict) or not all(map(_is_entry, orbits.values())):
        message = f"{path} is not a plan: 'orbits' must hold a size and the kept slots of each orbit"
        raise PlanError(message)
    return orbits


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"size", "kept"} or not isinstance(entry["kept"], list):
        return False
    return all(type(number) is int for number in (entry["size"], *entry["kept"]))
