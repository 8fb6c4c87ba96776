"""One safetensors file per graph: weights any safetensors tool can open, and the graph in the header's metadata.

The metadata entry ``torch_dag`` is a JSON document, written by `describe`. Everything in it is data: ops are named by
their registry keys, constants are of the closed set that `torch_dag_core.graph.values` defines, operands are given by
position. Nothing in a file is imported, unpickled or evaluated.
"""

from __future__ import annotations

from torch_dag_core.serialization.reader import load
from torch_dag_core.serialization.writer import save

__all__ = ["load", "save"]
