"""From traced calls to a graph: traces are joined, and normalizers turn every call into vertices."""

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.modules import atomic_modules
from torch_dag_core.conversion.normalizers import normalizers

__all__ = ["Call", "Value", "atomic_modules", "normalizers"]
