"""What an export refuses, one class for each thing that a caller could handle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_dag_core.errors import TorchDagError

if TYPE_CHECKING:
    from torch_dag_export.report import ExportReport


class ExportError(TorchDagError):
    """A graph cannot be exported; no file was written."""


class UnknownFormatError(ExportError, LookupError):
    """No installed plugin writes files of this format."""


class MissingPackageError(ExportError, ImportError):
    """A format needs a package that is not installed."""


class QuantizationError(TorchDagError, ValueError):
    """The weights of a graph cannot be stored as integers in the way that was asked for."""


class ExportCheckError(ExportError):
    """The exported model does not compute what the graph computes, or its runtime cannot load or run it.

    Attributes:
        report: What was measured; None if the model did not run.
    """

    def __init__(self, message: str, report: ExportReport | None = None) -> None:
        self.report = report
        super().__init__(message)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of another library says, which may be pages long."""
    return next(iter(str(error).strip().splitlines()), "")
