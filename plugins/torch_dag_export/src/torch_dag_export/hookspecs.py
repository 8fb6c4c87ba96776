"""Hooks that the export plugin adds to the core's; a plugin implements them with ``optionalhook=True``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookspec

if TYPE_CHECKING:
    from torch_dag_export.format import ExportFormat
    from torch_dag_export.python.form import PythonForm


@hookspec
def torch_dag_export_formats() -> Iterable[ExportFormat]:
    """Add formats that ``torch-dag export`` writes."""


@hookspec
def torch_dag_python_forms() -> Iterable[PythonForm]:
    """Say how ops read as Python, for ``torch-dag export --to python``."""
