"""How the axis rule of a torch function is declared, and how it reads the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch_dag_core.graph.values import Slot
from torch_dag_pruning.axes.relation import Axes, Context, Rule

_NUMPY_NAMES = {"dim": "axis", "keepdim": "keepdims", "input": "x"}
"""Names that torch accepts in place of its own."""


@dataclass(frozen=True)
class FunctionRule:
    """The axis rule of some torch functions.

    Attributes:
        names: The functions, as ``TorchCall`` names them: ``torch.lerp``, ``fft.rfft2``.
        rule: Called once for each call of one of these functions.
    """

    names: tuple[str, ...]
    rule: Rule


def function_rule(*names: str) -> Callable[[Rule], FunctionRule]:
    """Make the decorated function the `FunctionRule` of the torch functions with these names."""

    def decorate(rule: Rule) -> FunctionRule:
        return FunctionRule(names, rule)

    return decorate


def argument(ctx: Context, place: int, name: str, default: Any = None) -> Any:
    """Return an argument of the call as it is stored: a constant, or a `Slot` for an operand.

    Args:
        ctx: The context of a ``TorchCall``.
        place: The position of the argument in the signature of the function.
        name: Its name there.
        default: Returned if the call does not give the argument.
    """
    positional, keywords = ctx.module.arguments, dict(ctx.module.keywords)
    if place < len(positional):
        return positional[place]
    return keywords.get(name, keywords.get(_NUMPY_NAMES.get(name, name), default))


def operand_axes(ctx: Context, place: int, name: str) -> Axes | None:
    """Return the axes of an argument that is a tensor, None if it is anything else."""
    given = argument(ctx, place, name)
    if not isinstance(given, Slot):
        return None
    axes: Axes = ctx.inputs[given.index]
    return axes
