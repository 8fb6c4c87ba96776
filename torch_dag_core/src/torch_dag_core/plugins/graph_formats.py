"""The records of hooks that concern pictures: kinds of files to write a graph to, and named sets of vertices."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch_dag_core.plugins.record_checks import CALLABLE, Kind, check_fields

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_SUFFIX = Kind("a suffix such as '.html'", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\.\w+", value)))


@dataclass(frozen=True)
class GraphFormat:
    """A kind of file that ``torch-dag show --out`` writes.

    Attributes:
        suffix: Ending of the file's name, with its dot.
        description: What the file is, in a few words.
        render: Returns the content of the file for a graph and the graph to compare it with, which may be None.
    """

    suffix: str
    description: str
    render: Callable[[DagModule, DagModule | None], str]

    def __post_init__(self) -> None:
        """Refuse what is no suffix or cannot be called."""
        check_fields(self, {"suffix": _SUFFIX, "render": CALLABLE})

    @property
    def name(self) -> str:
        """The suffix, which one plugin alone can have."""
        return self.suffix


@dataclass(frozen=True)
class Overlay:
    """A named set of vertices that a picture can highlight together.

    Attributes:
        name: A name that is unique among the overlays of a graph.
        text: A few words about it, such as its size.
        places: Pairs of a vertex's name and what of the vertex belongs to the set, in the order of the graph.
    """

    name: str
    text: str
    places: tuple[tuple[str, str], ...]
