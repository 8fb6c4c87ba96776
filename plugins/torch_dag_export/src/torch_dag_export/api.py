"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_export.errors import (
    ExportCheckError,
    ExportError,
    MissingPackageError,
    UnknownFormatError,
)
from torch_dag_export.exporting import export
from torch_dag_export.format import ExportFormat, export_formats
from torch_dag_export.python.form import PythonForm, written_as
from torch_dag_export.report import ExportReport, OutputCheck

__all__ = [
    "ExportCheckError",
    "ExportError",
    "ExportFormat",
    "ExportReport",
    "MissingPackageError",
    "OutputCheck",
    "PythonForm",
    "UnknownFormatError",
    "export",
    "export_formats",
    "written_as",
]
