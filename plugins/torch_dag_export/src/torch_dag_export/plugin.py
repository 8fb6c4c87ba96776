"""The hooks of torch-dag that this plugin implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from torch_dag_export.format import ExportFormat
    from torch_dag_export.python.form import PythonForm


@hookimpl
def torch_dag_commands() -> Iterable[click.Command]:
    """Add ``torch-dag export``."""
    from torch_dag_export.cli.command import export

    return (export,)


@hookimpl(optionalhook=True)
def torch_dag_export_formats() -> Iterable[ExportFormat]:
    """Add programs of PyTorch, ONNX models and Python files."""
    from torch_dag_export.formats.onnx_model import ONNX
    from torch_dag_export.formats.pt2 import PT2
    from torch_dag_export.formats.python_module import PYTHON

    return PT2, ONNX, PYTHON


@hookimpl(optionalhook=True)
def torch_dag_python_forms() -> Iterable[PythonForm]:
    """Say how the core's ops read as Python."""
    from torch_dag_export.python import core_forms as forms

    return (
        *forms.ARITHMETIC, *forms.CONTRACTIONS, *forms.LAYOUT, *forms.NORMALIZATIONS, *forms.REDUCTIONS,
        *forms.SAMPLING, *forms.BUILT_IN,
    )  # fmt: skip
