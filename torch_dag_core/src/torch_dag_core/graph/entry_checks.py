"""The check with which every public function that takes a graph begins."""

from __future__ import annotations

import os

from torch_dag_core.errors import NotAGraphError

_WRAPPERS = ("module", "_orig_mod")
"""Where DistributedDataParallel and torch.compile keep what they wrap."""


def require_graphs(by: str, *graphs: object) -> None:
    """Refuse arguments that are no graphs, such as models that were not converted.

    Args:
        by: The function that takes the graphs, as users call it.
        *graphs: Its arguments.

    Raises:
        NotAGraphError: one of them is not a DagModule; the message says how to get one.
    """
    from torch_dag_core.graph.dag import DagModule

    for given in graphs:
        if not isinstance(given, DagModule):
            wrapped = [name for name in _WRAPPERS if isinstance(getattr(given, name, None), DagModule)]
            hint = _hint(given, wrapped)
            message = f"{by} takes a DagModule, not a {type(given).__name__}; {hint}"
            raise NotAGraphError(message)


def _hint(given: object, wrapped: list[str]) -> str:
    if wrapped:
        return f"it wraps one: pass its .{wrapped[0]}"
    if isinstance(given, (str, os.PathLike)):
        return "load it first: td.load(path)"
    return "convert it first: td.build_from_unstructured_module(model, example_inputs)"
