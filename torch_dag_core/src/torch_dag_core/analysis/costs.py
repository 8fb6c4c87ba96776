"""The cost of one call, from the rule of its op."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from torch_dag_core.errors import PluginError
from torch_dag_core.ops.flops import per_output
from torch_dag_core.plugins.calling import errors_attributed_to, release_name
from torch_dag_core.plugins.registry import OpSpec

Shapes = Sequence[Sequence[Any]]


def call_flops(
    spec: OpSpec | None, module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Mapping[str, Sequence[Any]]
) -> Any:
    """Return the FLOPs of one call: by the op's own rule, or one for each element that it returns.

    Args:
        spec: The op, None for a module that is none.
        module: The vertex's module.
        inputs: Shapes of its operands; ints or differentiable scalars.
        outputs: Shapes of its results.
        parameters: Shapes of the module's own tensors by name.

    Raises:
        PluginError: the rule of a plugin raised, or returned anything but a number from 0 up; an int for ints.
    """
    if spec is None or spec.flops is None:
        return per_output(module, inputs, outputs, parameters)
    with errors_attributed_to(spec.owner, f"the FLOPs rule of {spec.key!r}"):
        cost = spec.flops(module, inputs, outputs, parameters)
    sizes = [size for shape in (*inputs, *outputs, *parameters.values()) for size in shape]
    if not _is_cost(cost, exact=all(type(size) is int for size in sizes)):
        kind = "an int from 0 up, for sizes that are ints" if isinstance(cost, float) else "a number from 0 up"
        message = (
            f"the FLOPs rule of {spec.key!r} of {release_name(spec.owner)} returned {reprlib.repr(cost)}, not {kind}"
        )
        raise PluginError(spec.owner, message)
    return cost


def _is_cost(cost: Any, *, exact: bool) -> bool:
    if exact:
        return type(cost) is int and cost >= 0
    # Differentiable scalars, and polynomials in sizes, have no sign to look at yet.
    return cost is not None and not isinstance(cost, (str, bool)) and not _is_bad_number(cost)


def _is_bad_number(cost: Any) -> bool:
    return isinstance(cost, (int, float)) and not (math.isfinite(cost) and cost >= 0)
