"""Cost rules shared by many ops: the FLOPs of one call from the shapes of its tensors.

The convention: 2 FLOPs for each multiply-accumulate of a contraction, 1 for each element of an elementwise result
whatever the function, and 0 for moving data. Sizes may be ints, polynomials or differentiable scalars, so rules use
only ``+`` and ``*`` on them. Formulas for one family of ops are in the module of that family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from torch_dag_core.plugins.registry import FlopsRule

Shapes = Sequence[Sequence[Any]]
Parameters = Mapping[str, Sequence[Any]]


def numel(shape: Sequence[Any]) -> Any:
    """Return the number of elements of a tensor."""
    return math.prod(shape)


def free(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return 0: the op moves data, or does nothing in evaluation mode."""
    del module, inputs, outputs, parameters
    return 0


def elementwise(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return one FLOP for each element of all outputs."""
    del module, inputs, parameters
    return sum(numel(shape) for shape in outputs)


def per_input(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return one FLOP for each element of the first input."""
    del module, outputs, parameters
    return numel(inputs[0])


def times_output(count: int) -> FlopsRule:
    """Return a rule of ``count`` FLOPs for each element of all outputs."""

    def rule(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
        return count * elementwise(module, inputs, outputs, parameters)

    return rule


def times_input(count: int) -> FlopsRule:
    """Return a rule of ``count`` FLOPs for each element of the first input."""

    def rule(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
        return count * per_input(module, inputs, outputs, parameters)

    return rule
