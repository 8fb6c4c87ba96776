"""Masked forms of recurrent layers and cells: later steps and layers read nothing of removed hidden units (M3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.masked_ops.form import Masked, MaskOf, cleared


class MaskedRecurrence(Masked):
    """Base of masked recurrences: weights are masked in the dimensions of hidden units that they sum over.

    The axes are the hidden units of one layer and direction and, for an LSTM with projections, what these make of them.
    """

    def __init__(self, op: nn.Module, axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, axes, mask_of)
        self._op = (op,)  # in a tuple, so that it is no submodule: its tensors are those of this module

    def masked_weights(self) -> dict[str, Tensor | None]:
        """Return all tensors of the op by name, with masks on the weights that read hidden units."""
        return {name: self._masked(name, weight) for name, weight in self._parameters.items()}

    def _masked(self, name: str, weight: Tensor | None) -> Tensor | None:
        mask = self._mask_of_reader(name)
        if weight is None or mask is None:
            return weight
        # The layers after the first read the hidden units of all directions, one after the other.
        return cleared(weight, mask.to(weight).repeat(weight.shape[1] // len(mask)))

    def _mask_of_reader(self, name: str) -> Tensor | None:
        """Return the mask of what a weight reads, None if that is no hidden state or nothing of it is masked."""
        if name.startswith("weight_hr"):
            return self._buffers["mask0"]
        is_later = name.startswith("weight_ih_l") and not name.startswith("weight_ih_l0")
        is_hidden = is_later or name.startswith("weight_hh")
        return self._buffers[f"mask{len(self.axes) - 1}"] if is_hidden else None


class MaskedRecurrentCell(MaskedRecurrence):
    """One step of a recurrence."""

    def forward(self, *operands: Any) -> Any:
        """Return the next state."""
        return _twin(self._op[0], _parameters=self.masked_weights())(*operands)


class MaskedRecurrentLayer(MaskedRecurrence):
    """A recurrence over a sequence, of one or more layers in one or both directions."""

    def forward(self, *operands: Any) -> Any:
        """Return the outputs of the last layer at all steps, and the final states of all layers."""
        op: Any = self._op[0]
        masked = self.masked_weights()
        weights = [masked[name] for name in op._flat_weights_names]
        return _twin(op, _flat_weights=weights, training=self.training)(*operands)


def _twin(op: nn.Module, **attributes: Any) -> nn.Module:
    """Return a shallow copy of a module with other attributes."""
    twin = type(op).__new__(type(op))
    vars(twin).update(vars(op), **attributes)
    return twin
