"""Recurrent layers and cells of torch."""

from __future__ import annotations

from typing import Any

from torch import nn

from torch_dag_core.ops.flops import Parameters, Shapes, numel
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_core.plugins.declarations import declare
from torch_dag_core.plugins.registry import FlopsRule


def recurrence(work: int) -> FlopsRule:
    """Return the cost rule of a recurrent layer or cell.

    At each time step, every weight matrix (of each layer, direction, gate and projection) is multiplied once, and every
    bias is added once. ``work`` is the number of other FLOPs per hidden unit and step.
    """

    def rule(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
        del module, outputs
        steps = numel(inputs[0][:-1])
        weights = [shape for name, shape in parameters.items() if name.startswith("weight_")]
        biases = [shape for name, shape in parameters.items() if name.startswith("bias_")]
        recurrences = sum(name.startswith("weight_hh") for name in parameters)
        matrices = sum(numel(shape) for shape in weights)
        vectors = sum(numel(shape) for shape in biases)
        kinds = ("weight_hr", "weight_hh")  # the first that there is reads the hidden units
        units = next(shape[1] for kind in kinds for name, shape in parameters.items() if name.startswith(kind))
        return steps * (2 * matrices + vectors + work * recurrences * units)

    return rule


# FLOPs per hidden unit and step, as torch computes it. RNN: a sum and a nonlinearity. GRU: a sum and a nonlinearity
# for two gates; r * h, a sum and tanh; (h - n) * z + n. LSTM: the same for four gates; f * c + i * g; o * tanh(c).
RNN_WORK = 2
GRU_WORK = 2 * 2 + 3 + 3
LSTM_WORK = 4 * 2 + 3 + 2

# The signature of these classes is ``*args, **kwargs``, so their parameters are listed here.
_PARAMETERS = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")


def _codec(target: type[nn.Module], *more: str) -> ModuleCodec:
    return ModuleCodec(target, parameters=(*_PARAMETERS, *more))


LSTM = declare("core.lstm", nn.LSTM, codec=_codec(nn.LSTM, "proj_size"), flops=recurrence(LSTM_WORK))
GRU = declare("core.gru", nn.GRU, codec=_codec(nn.GRU), flops=recurrence(GRU_WORK))
RNN = declare("core.rnn", nn.RNN, codec=_codec(nn.RNN, "nonlinearity"), flops=recurrence(RNN_WORK))
LSTM_CELL = declare("core.lstm_cell", nn.LSTMCell, flops=recurrence(LSTM_WORK))
GRU_CELL = declare("core.gru_cell", nn.GRUCell, flops=recurrence(GRU_WORK))
RNN_CELL = declare("core.rnn_cell", nn.RNNCell, flops=recurrence(RNN_WORK))
