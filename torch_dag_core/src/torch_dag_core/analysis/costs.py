"""The FLOPs of one call of an op, by the op's own rule."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torch_dag_core.errors import PluginError
from torch_dag_core.ops.flops import elementwise
from torch_dag_core.plugins.calling import errors_attributed_to, release_name
from torch_dag_core.plugins.registry import OpSpec

Shapes = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class CallCost:
    """The FLOPs of one call; where no rule knows them, one for each element of the results."""

    flops: Any
    is_known: bool


def call_cost(
    spec: OpSpec | None, module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Mapping[str, Sequence[Any]]
) -> CallCost:
    """Return what one call costs, by the rule of its op.

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
    cost: Any = NotImplemented
    if spec is not None and spec.flops is not None:
        with errors_attributed_to(spec.owner, f"the FLOPs rule of {spec.key!r}"):
            cost = spec.flops(module, inputs, outputs, parameters)
        if cost is not NotImplemented:
            sizes = [size for shape in (*inputs, *outputs, *parameters.values()) for size in shape]
            _check_cost(spec, cost, exact=all(type(size) is int for size in sizes))
    if cost is NotImplemented:
        return CallCost(elementwise(module, inputs, outputs, parameters), is_known=False)
    return CallCost(cost, is_known=True)


def call_flops(
    spec: OpSpec | None, module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Mapping[str, Sequence[Any]]
) -> Any:
    """Return the FLOPs of `call_cost` alone; arguments and errors as there."""
    return call_cost(spec, module, inputs, outputs, parameters).flops


def _check_cost(spec: OpSpec, cost: Any, *, exact: bool) -> None:
    if not _is_cost(cost, exact=exact):
        kind = "an int from 0 up, for sizes that are ints" if isinstance(cost, float) else "a number from 0 up"
        message = (
            f"the FLOPs rule of {spec.key!r} of {release_name(spec.owner)} returned {reprlib.repr(cost)}, not {kind}"
        )
        raise PluginError(spec.owner, message)


def _is_cost(cost: Any, *, exact: bool) -> bool:
    if exact:
        return type(cost) is int and cost >= 0
    # The sign of differentiable scalars and of polynomials in sizes is not known yet.
    return cost is not None and not isinstance(cost, (str, bool)) and not _is_bad_number(cost)


def _is_bad_number(cost: Any) -> bool:
    return isinstance(cost, (int, float)) and not (math.isfinite(cost) and cost >= 0)
