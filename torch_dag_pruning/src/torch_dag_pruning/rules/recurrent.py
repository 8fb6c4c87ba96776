"""Axis rules of recurrent layers and cells (O18)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from torch_dag_pruning.axes import Axis, Fixed, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink, axis_rule
from torch_dag_pruning.masked_ops.recurrence import MaskedRecurrence, MaskedRecurrentCell, MaskedRecurrentLayer
from torch_dag_pruning.rules.layout import tensors_in
from torch_dag_pruning.rules.touching import frozen

_GATES = "the gates of a recurrence"
_STEPS = "every step reads the one before"


def _units(ctx: Context, own: dict[str, Axes], gates: int) -> tuple[Axis, Axis]:
    """Tie the dimensions of all tensors of a recurrence, and return its hidden units and what it returns of them.

    The units of all layers and directions are tied, because they have one size in the configuration.
    """
    first, *others = [_ungated(ctx, axes[0], gates) for name, axes in own.items() if "_hr_" not in name]
    projections = [axes for name, axes in own.items() if "_hr_" in name]
    for other in others:
        ctx.unify(first, other)
    returned = projections[0][0] if projections else first
    for made, read in projections:
        ctx.unify(made, returned)
        ctx.unify(read, first)
    for name, axes in own.items():
        if name.startswith("weight_hh"):
            ctx.unify(axes[1], returned)
    return first, returned


def _ungated(ctx: Context, axis: Axis, gates: int) -> Axis:
    gate, unit = ctx.reshape([axis], [gates, -1])
    ctx.freeze([gate], _GATES)
    return unit


def _relation(
    ctx: Context, form: Callable[..., MaskedRecurrence], own: dict[str, Axes], read: Axis, units: tuple[Axis, Axis],
    outputs: list[Axes],
) -> Relation:  # fmt: skip
    hidden, returned = units
    over = (hidden,) if returned is hidden else units
    x: Axes = ctx.inputs[0]
    projected = {"proj_size": returned} if len(over) == 2 else {}
    return Relation(
        outputs,
        (Sink(0, (len(x) - 1,), (read,)),),
        own,
        rewrite={"input_size": read, "hidden_size": hidden, **projected},
        masked=lambda module, mask_of: form(module, over, mask_of),
        statistics=over,
        minimum=tuple((axis, 1) for axis in (read, *over)),
        learned=over,
    )


# Layers ----------------------------------------------------------------------------------------------------------


def _layer(ctx: Context, gates: int) -> Relation:
    """Tie the hidden units of all layers and directions; the steps are frozen, samples pass."""
    module, x = ctx.module, ctx.inputs[0]
    own = ctx.parameters(*(name for name, _ in module.named_parameters()))
    units = _units(ctx, own, gates)
    read, made = own["weight_ih_l0"][1], product(Fixed(2 if module.bidirectional else 1), units[1])
    for name, axes in own.items():
        if name.startswith("weight_ih"):
            ctx.unify(axes[1], read if name.startswith("weight_ih_l0") else made)
    ctx.unify(x[-1], read)
    (steps,) = frozen(ctx, x, [1 if module.batch_first and len(x) == 3 else 0], _STEPS)
    layers = Fixed(ctx.outputs[1][0], ctx.cause("layers and directions"))
    state: Axes = [layers, *(axis for dim, axis in enumerate(x[:-1]) if dim != steps)]
    finals = _states(ctx, state, units)
    return _relation(ctx, MaskedRecurrentLayer, own, read, units, [[*x[:-1], made], *finals])


def _cell(ctx: Context, gates: int) -> Relation:
    """Tie the hidden units; samples pass."""
    x = ctx.inputs[0]
    own = ctx.parameters(*(name for name, _ in ctx.module.named_parameters()))
    units = _units(ctx, own, gates)
    read = own["weight_ih"][1]
    ctx.unify(x[-1], read)
    return _relation(ctx, MaskedRecurrentCell, own, read, units, _states(ctx, x[:-1], units))


def _states(ctx: Context, rest: Axes, units: tuple[Axis, Axis]) -> list[Axes]:
    """Tie the states that the op is given, and return those that it gives: what is returned, then what a cell holds."""
    states = [[*rest, unit] for unit in (units[1], units[0])]
    for given, own in zip(tensors_in(tuple(ctx.inputs[1:])), states, strict=False):
        for axis, other in zip(given, own, strict=True):
            ctx.unify(axis, other)
    return states if isinstance(ctx.module, (nn.LSTM, nn.LSTMCell)) else states[:1]


LAYERS = (
    axis_rule("core.lstm")(partial(_layer, gates=4)),
    axis_rule("core.gru")(partial(_layer, gates=3)),
    axis_rule("core.rnn")(partial(_layer, gates=1)),
    axis_rule("core.lstm_cell")(partial(_cell, gates=4)),
    axis_rule("core.gru_cell")(partial(_cell, gates=3)),
    axis_rule("core.rnn_cell")(partial(_cell, gates=1)),
)
