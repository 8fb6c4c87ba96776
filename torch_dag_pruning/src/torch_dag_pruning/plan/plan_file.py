"""Plan files: JSON, validated when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch_dag_pruning.documents import Document
from torch_dag_pruning.errors import PlanError

PLAN = Document("torch_dag_plan", 1, "a plan", "is not a plan", PlanError)


def read_orbits(path: Path) -> dict[str, dict[str, Any]]:
    """Return the content of a plan file as ``{orbit: {"size": int, "kept": [int, ...]}}``.

    Raises:
        PlanError: the file is not a plan, or has a newer format.
    """
    orbits = PLAN.read(path).get("orbits")
    if not isinstance(orbits, dict) or not all(map(_is_entry, orbits.values())):
        raise PLAN.refusal(path, "'orbits' must hold a size and the kept slots of each orbit")
    return orbits


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"size", "kept"} or not isinstance(entry["kept"], list):
        return False
    return all(type(number) is int for number in (entry["size"], *entry["kept"]))
