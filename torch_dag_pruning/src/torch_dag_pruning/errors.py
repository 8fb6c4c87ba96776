"""Errors that pruning raises on purpose."""

from __future__ import annotations

from torch_dag_core.errors import TorchDagError


class PruningError(TorchDagError):
    """Base of the errors of this distribution."""


class AnalysisError(PruningError):
    """A graph cannot be analysed, or a rule contradicts the op that it describes."""


class PlanError(PruningError, ValueError):
    """A plan does not fit the analysis, cannot be read, or cannot be made."""


class RemovalError(PruningError):
    """A plan cannot be carried out.

    Attributes:
        vertex: Name of the vertex that is in the way; None where it is no single one.
    """

    def __init__(self, vertex: str | None, message: str) -> None:
        self.vertex = vertex
        super().__init__(message)


class RemovalMismatchError(RemovalError):
    """The removed model does not compute what the masked one does, or does not cost what the analysis predicts.

    Attributes:
        vertex: Name of the first vertex that differs; None where the costs do.
        difference: How far the two are apart: relative to the largest element of the vertex's value, or in FLOPs or
            parameters.
    """

    def __init__(self, vertex: str | None, difference: float, message: str) -> None:
        self.difference = difference
        super().__init__(vertex, message)


class PruningWarning(UserWarning):
    """Something that a user of the result should know."""


class CalibrationError(PruningError, ValueError):
    """Calibration data cannot be read, or statistics of it do not fit the graph."""


class RecoveryError(PruningError):
    """A pruned graph cannot be repaired: it is not what the plan leaves of its reference, or does not fit in memory."""


class LatencyError(PruningError, ValueError):
    """A latency cannot be measured: there is no such device, an op does not run on it, or a table cannot be read."""
