"""The FLOPs of one call of an op, by the op's own rule."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from torch_dag_core.errors import PluginError
from torch_dag_core.ops.flops import per_output
from torch_dag_core.plugins.calling import blaming, named
from torch_dag_core.plugins.registry import OpSpec

Shapes = Sequence[Sequence[Any]]


def call_flops(
    spec: OpSpec | None, module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Mapping[str, Sequence[Any]]
) -> Any:
    """Return the FLOPs of one call: by the op's own rule, or one for each element that it returns.

    Args:
        spec: The op; None for a module that is not in the registry.
        module: The vertex's module.
        inputs: Shapes of its operands; ints or differentiable scalars.
        outputs: Shapes of its results.
        parameters: Shapes of the module's own tensors by name.

    Raises:
        PluginError: the rule of a plugin raised an error, or did not return a number of at least 0; for sizes that are
            ints it must be an int.
    """
    if spec is None or spec.flops is None:
        return per_output(module, inputs, outputs, parameters)
    with blaming(spec.owner, f"the FLOPs rule of {spec.key!r}"):
        cost = spec.flops(module, inputs, outputs, parameters)
    sizes = [size for shape in (*inputs, *outputs, *parameters.values()) for size in shape]
    if not _is_cost(cost, exact=all(type(size) is int for size in sizes)):
        kind = "an int from 0 up, for sizes that are ints" if isinstance(cost, float) else "a number from 0 up"
        message = f"the FLOPs rule of {spec.key!r} of {named(spec.owner)} returned {reprlib.repr(cost)}, not {kind}"
        raise PluginError(spec.owner, message)
    return cost


def _is_cost(cost: Any, *, exact: bool) -> bool:
    if exact:
        return type(cost) is int and cost >= 0
    # The sign of differentiable scalars and of polynomials in sizes is not known yet.
    return cost is not None and not isinstance(cost, (str, bool)) and not _is_bad_number(cost)


def _is_bad_number(cost: Any) -> bool:
    return isinstance(cost, (int, float)) and not (math.isfinite(cost) and cost >= 0)
