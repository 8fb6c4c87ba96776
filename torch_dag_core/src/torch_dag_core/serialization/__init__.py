"""One safetensors file per graph: weights any safetensors tool can open, and the graph in the header's metadata.

The metadata key ``torch_dag`` holds one JSON document (`describe`) in which everything is data: ops by registry
key, constants of the closed set of `torch_dag_core.graph.values`, operands by position. Nothing in a file is imported,
unpickled or evaluated.
"""

from __future__ import annotations

from torch_dag_core.serialization.reader import load
from torch_dag_core.serialization.writer import save

__all__ = ["load", "save"]
