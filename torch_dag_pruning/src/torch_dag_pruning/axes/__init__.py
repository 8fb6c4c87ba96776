"""The axis algebra: expressions for the dimensions of tensors, and a solver for equalities between them.

Nothing in this package depends on ops or models. ``docs/axis-algebra.md`` explains the theory; docstrings cite its
rules by their anchors (A1, A2, ...).
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
from torch_dag_pruning.axes.masking import kept_indices, mask, membership
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
    "membership",
    "product",
    "size",
]
