"""What plugins add to the coverage command: further columns about each converted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.record_checks import CALLABLE, Kind, check_fields

_NAME = Kind("an identifier, the name of a column", lambda value: isinstance(value, str) and value.isidentifier())


@dataclass(frozen=True)
class Subject:
    """The converted model that a check examines.

    Attributes:
        dag: The graph, in evaluation mode. A check works on copies.
        has_weights: Whether tensors have values; False for models that are built without memory, on the meta device.
        keep: Saves a graph under a name, so that it is loaded in another process and compared bit for bit; without
            weights, only its structure.
    """

    dag: DagModule
    has_weights: bool
    keep: Callable[[str, DagModule], None]


@dataclass(frozen=True)
class CoverageCheck:
    """One check of every converted model; plugins add theirs through the hook ``torch_dag_coverage_checks``.

    Attributes:
        name: Name of the column that the result is stored under.
        run: Returns values that JSON can hold, by name. An error that it raises is the reason why the model failed.
    """

    name: str
    run: Callable[[Subject], Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            TypeError: a field has a wrong value.
        """
        check_fields(self, {"name": _NAME, "run": CALLABLE})
