"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_export.checking import compare_outputs
from torch_dag_export.errors import (
    ExportCheckError,
    ExportError,
    MissingPackageError,
    QuantizationError,
    UnknownFormatError,
)
from torch_dag_export.exporting import export
from torch_dag_export.format import ExportFormat, export_formats
from torch_dag_export.python.form import PythonForm, written_as
from torch_dag_export.quantization.algorithm import QuantizationReport, WeightQuantization
from torch_dag_export.quantization.config import WeightQuantizationConfig
from torch_dag_export.quantization.weights import quantize_weights
from torch_dag_export.report import ExportReport, OutputCheck

__all__ = [
    "ExportCheckError",
    "ExportError",
    "ExportFormat",
    "ExportReport",
    "MissingPackageError",
    "OutputCheck",
    "PythonForm",
    "QuantizationError",
    "QuantizationReport",
    "UnknownFormatError",
    "WeightQuantization",
    "WeightQuantizationConfig",
    "compare_outputs",
    "export",
    "export_formats",
    "quantize_weights",
    "written_as",
]
