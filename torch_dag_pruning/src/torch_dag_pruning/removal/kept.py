"""Sizes and positions of the slots that a plan keeps, and tensors sliced to them (A8, R1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from torch import Tensor, nn

from torch_dag_pruning.axes import Axis, kept_indices, size


class Kept:
    """The kept slots of any axis; results are cached by the resolved axis."""

    def __init__(self, find: Callable[[Axis], Axis], masks: Mapping[int, Tensor]) -> None:
        """Store the kept slots of every free atom.

        Args:
            find: Resolves an axis: `AxisSolver.find`.
            masks: For the id of each free atom, a bool vector of its size, True for kept slots.
        """
        self._find, self._masks = find, masks
        self.counts = {atom: int(mask.sum()) for atom, mask in masks.items()}
        self._sizes: dict[Axis, int] = {}
        self._indices: dict[Axis, Tensor | None] = {}
        self._tied: dict[Tensor, Tensor] = {}

    def size(self, axis: Axis) -> int:
        """Return the number of kept slots of an axis."""
        axis = self._find(axis)
        if axis not in self._sizes:
            self._sizes[axis] = int(size(axis, self.counts))
        return self._sizes[axis]

    def sizes(self, axes: Sequence[Axis]) -> tuple[int, ...]:
        """Return the shape after removal of a tensor with these axes."""
        return tuple(self.size(axis) for axis in axes)

    def ratio(self, axis: Axis) -> Fraction:
        """Return the kept fraction of an axis."""
        return Fraction(self.size(axis), axis.n)

    def indices(self, axis: Axis) -> Tensor | None:
        """Return the kept positions, ascending, or None if all are kept."""
        axis = self._find(axis)
        if axis not in self._indices:
            whole = self.size(axis) == axis.n
            self._indices[axis] = None if whole else kept_indices(axis, self._masks)
        return self._indices[axis]

    def is_whole(self, axes: Sequence[Axis]) -> bool:
        """Return whether every slot of all axes is kept."""
        return all(self.size(axis) == axis.n for axis in axes)

    def fingerprint(self, axes: Sequence[Axis]) -> tuple[tuple[int, ...] | None, ...]:
        """Return a hashable key that is equal for lists of axes with equal kept positions."""
        kept = (self.indices(axis) for axis in axes)
        return tuple(None if indices is None else tuple(indices.tolist()) for indices in kept)

    def take(self, tensor: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Return the kept part of a tensor; the tensor itself if all of it is kept."""
        for dim, axis in enumerate(axes):
            indices = self.indices(axis)
            if indices is not None:
                tensor = tensor.index_select(dim, indices.to(tensor.device))
        return tensor

    def take_learned(self, tensor: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Return the kept part of a parameter or buffer, as a parameter or buffer.

        The result is the same object for the same tensor, so tied weights stay tied. A tensor that is kept whole is
        returned itself.
        """
        if self.is_whole(axes):
            return tensor
        if tensor not in self._tied:
            part = self.take(tensor.detach(), axes).clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            self._tied[tensor] = nn.Parameter(part, requires_grad=tensor.requires_grad) if is_parameter else part
        return self._tied[tensor]
