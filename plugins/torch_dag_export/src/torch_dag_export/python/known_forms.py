"""The forms of all installed plugins, and the vertices of a graph that none of them writes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.loading import add_hookspecs, by_key, default_registry
from torch_dag_export import hookspecs
from torch_dag_export.errors import ExportError
from torch_dag_export.python.form import PythonForm

_SHOWN = 5


def known_forms() -> Mapping[type[nn.Module], PythonForm]:
    """Return the forms of all plugins by the class of their vertices."""
    add_hookspecs(hookspecs)
    found = by_key("torch_dag_python_forms", PythonForm, lambda form: form.keys)
    return {form.target: form for _, form in found.values()}


def form_of(module: nn.Module, forms: Mapping[type[nn.Module], PythonForm]) -> PythonForm | None:
    """Return how the vertices of a module are written: as a plugin says, or as a module of `torch.nn`."""
    target = type(module)
    if target in forms:
        return forms[target]
    is_torch = getattr(nn, target.__name__, None) is target and default_registry().for_class(target) is not None
    return PythonForm(target=target) if is_torch else None


def forms_of(vertices: list[InnerVertex]) -> Mapping[InnerVertex, PythonForm]:
    """Return the form of every vertex.

    Raises:
        ExportError: some cannot be written; names them with their ops.
    """
    forms = known_forms()
    found = {vertex: form_of(vertex.module, forms) for vertex in vertices}
    missing = [vertex for vertex, form in found.items() if form is None]
    if missing:
        named = [f"{type(vertex.module).__name__} ({vertex.name!r})" for vertex in missing[:_SHOWN]]
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        message = (
            f"no plugin says how to write {', '.join(named)}{more} as Python; export to pt2, or register a PythonForm "
            "for the op"
        )
        raise ExportError(message)
    return {vertex: form for vertex, form in found.items() if form is not None}
