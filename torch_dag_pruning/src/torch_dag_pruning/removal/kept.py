"""What a plan keeps of any axis, and tensors cut down to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from torch import Tensor, nn

from torch_dag_pruning.axes import Axis, kept_indices, size


class Kept:
    """Sizes and positions of what a plan keeps; each expression is evaluated once."""

    def __init__(self, find: Callable[[Axis], Axis], masks: Mapping[int, Tensor]) -> None:
        """Take what resolves an axis, and which slots of each free atom stay, as a bool vector by the atom's id."""
        self._find, self._masks = find, masks
        self.counts = {atom: int(mask.sum()) for atom, mask in masks.items()}
        self._sizes: dict[Axis, int] = {}
        self._indices: dict[Axis, Tensor | None] = {}
        self._tied: dict[Tensor, Tensor] = {}

    def size(self, axis: Axis) -> int:
        """Return how many slots of an axis stay."""
        axis = self._find(axis)
        if axis not in self._sizes:
            self._sizes[axis] = int(size(axis, self.counts))
        return self._sizes[axis]

    def sizes(self, axes: Sequence[Axis]) -> tuple[int, ...]:
        """Return the shape that is left of a tensor with these axes."""
        return tuple(self.size(axis) for axis in axes)

    def ratio(self, axis: Axis) -> Fraction:
        """Return which part of an axis stays."""
        return Fraction(self.size(axis), axis.n)

    def indices(self, axis: Axis) -> Tensor | None:
        """Return the positions that stay, ascending, or None where all do."""
        axis = self._find(axis)
        if axis not in self._indices:
            whole = self.size(axis) == axis.n
            self._indices[axis] = None if whole else kept_indices(axis, self._masks)
        return self._indices[axis]

    def is_whole(self, axes: Sequence[Axis]) -> bool:
        """Tell whether nothing is dropped along any of the axes."""
        return all(self.size(axis) == axis.n for axis in axes)

    def fingerprint(self, axes: Sequence[Axis]) -> tuple[tuple[int, ...] | None, ...]:
        """Return something equal for axes of which the same positions stay."""
        kept = (self.indices(axis) for axis in axes)
        return tuple(None if indices is None else tuple(indices.tolist()) for indices in kept)

    def take(self, tensor: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Return the kept part of a tensor; the tensor itself where that is all of it."""
        for dim, axis in enumerate(axes):
            indices = self.indices(axis)
            if indices is not None:
                tensor = tensor.index_select(dim, indices.to(tensor.device))
        return tensor

    def take_learned(self, tensor: Tensor, axes: Sequence[Axis]) -> Tensor:
        """Return the kept part of a parameter or buffer as one of its kind; the same object for the same tensor.

        A tensor that stays whole is returned itself, so that it stays tied to whatever it is tied to.
        """
        if self.is_whole(axes):
            return tensor
        if tensor not in self._tied:
            part = self.take(tensor.detach(), axes).clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            self._tied[tensor] = nn.Parameter(part, requires_grad=tensor.requires_grad) if is_parameter else part
        return self._tied[tensor]
