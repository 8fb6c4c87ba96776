"""The axis algebra: what the dimensions of tensors are made of, and the solver of their relations.

Knows nothing about ops or models.
"""

from torch_dag_pruning.axes.expression import (
    Atom,
    Axis,
    Cause,
    Concat,
    Fixed,
    Product,
    atoms,
    concat,
    product,
    size,
)
from torch_dag_pruning.axes.masking import kept_indices, mask
from torch_dag_pruning.axes.solver import AxisSolver

__all__ = [
    "Atom",
    "Axis",
    "AxisSolver",
    "Cause",
    "Concat",
    "Fixed",
    "Product",
    "atoms",
    "concat",
    "kept_indices",
    "mask",
    "product",
    "size",
]
