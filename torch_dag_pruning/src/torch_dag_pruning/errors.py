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
    """A plan cannot be carried out; ``vertex`` names the vertex in the way."""

    def __init__(self, vertex: str, message: str) -> None:
        self.vertex = vertex
        super().__init__(message)


class RemovalMismatchError(RemovalError):
    """The removed model does not compute what the masked one does; ``vertex`` is the first that differs."""

    def __init__(self, vertex: str, difference: float, message: str) -> None:
        self.difference = difference
        super().__init__(vertex, message)


class PruningWarning(UserWarning):
    """Something that a user of the result should know."""
