"""Names of variables, attributes and classes in an exported file."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

from torch_dag_core.graph.registration import first_free
from torch_dag_export.python.literals import text

_ALWAYS_TAKEN = frozenset({*dir(builtins), *keyword.kwlist, "self"})


class Variables:
    """Names that one function uses, each once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*_ALWAYS_TAKEN, *taken}

    def add(self, name: str) -> str:
        """Return a free variable name for a vertex: ``layer1_0_conv1`` for ``layer1.0.conv1``."""
        plain = re.sub(r"\W", "_", name)
        plain = f"v{plain}" if plain[0].isdigit() else plain
        chosen = first_free(plain, lambda each: each not in self._taken)
        self._taken.add(chosen)
        return chosen


def place(path: str) -> str:
    """Return the expression of what is registered under a dotted path: ``self.layer1[0].conv1``."""
    return "".join(["self", *map(_step, path.split("."))])


def is_attribute(part: str) -> bool:
    """Tell whether one part of a path can be written behind a dot."""
    return part.isidentifier() and part.isascii() and not keyword.iskeyword(part)


def _step(part: str) -> str:
    if is_attribute(part):
        return f".{part}"
    return f"[{part}]" if part.isascii() and part.isdigit() and str(int(part)) == part else f"[{text(part)}]"
