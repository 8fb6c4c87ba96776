"""Where the code of a vertex is, by the module of the source model that it came from."""

from __future__ import annotations

import inspect
from pathlib import Path

from torch import nn

from torch_dag_core.graph.dag import DagModule


def source_line(model: nn.Module, vertex: str) -> str:
    """Return file and line of the ``forward`` that computes a vertex, as ``layers/mlp.py:40 (Mlp.forward)``.

    For a layer of torch it is that of the module that calls it. Empty where the source is not known, as for graphs.
    """
    if isinstance(model, DagModule):
        return ""
    parts = vertex.split(".")
    for end in range(len(parts), -1, -1):
        module = _submodule(model, parts[:end])
        if module is not None and not type(module).__module__.startswith("torch."):
            return _line_of(type(module))
    return ""


def _submodule(model: nn.Module, path: list[str]) -> nn.Module | None:
    try:
        return model.get_submodule(".".join(path))
    except AttributeError:
        return None


def _line_of(cls: type[nn.Module]) -> str:
    forward = inspect.unwrap(cls.forward)
    try:
        file, (_, line) = inspect.getsourcefile(forward), inspect.getsourcelines(forward)
    except (OSError, TypeError):
        return ""
    return f"{'/'.join(Path(file or '').parts[-3:])}:{line} ({cls.__name__}.forward)"
