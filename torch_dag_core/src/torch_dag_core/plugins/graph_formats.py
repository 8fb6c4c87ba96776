"""The records of hooks that concern pictures: kinds of files to write a graph to, and named sets of vertices."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch_dag_core.errors import InputError
from torch_dag_core.plugins.record_checks import CALLABLE, OPTIONAL_CALLABLE, Kind, check_fields

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
        takes_depth: Whether ``render`` also takes the keyword ``depth``: None, or the number of parts that the names of
            those modules have which are drawn folded.
        notebook: Returns HTML that a notebook shows of a graph unasked, or raises `TorchDagError` for a graph that it
            cannot show. Of all formats, the first that has it is asked.
    """

    suffix: str
    description: str
    render: Callable[..., str]
    takes_depth: bool = False
    notebook: Callable[[DagModule], str] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no suffix or cannot be called."""
        check_fields(self, {"suffix": _SUFFIX, "render": CALLABLE, "notebook": OPTIONAL_CALLABLE})

    def drawn(self, dag: DagModule, before: DagModule | None = None, depth: int | None = None) -> str:
        """Return the content of the file.

        Args:
            dag: The graph.
            before: A graph to compare with.
            depth: How many parts the names of folded modules have; None draws every vertex.

        Raises:
            InputError: the format cannot fold modules and a depth is given.
        """
        if self.takes_depth:
            return self.render(dag, before, depth=depth)
        if depth is not None:
            message = f"a {self.suffix} file cannot be drawn to a depth; leave depth out"
            raise InputError(message)
        return self.render(dag, before)

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
