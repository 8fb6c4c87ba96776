"""Ops that move, select, join or repeat elements without computing on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, fill, resolve

Ints = tuple[int | Size, ...]


class Pack(Op):
    """Join values into one tuple, for modules that take several tensors in one argument."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the operands as a tuple."""
        return values


class Reshape(Op):
    """Give the elements another shape, row-major; stands for every view, flatten, squeeze and unsqueeze."""

    shape: Ints

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` in ``shape``: ints, at most one -1, and sizes of the operands."""
        return x.reshape(resolve(self.shape, (x, *like)))


class Permute(Op):
    """Reorder dimensions; stands for transpose as well."""

    dims: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with dimension ``dims[i]`` in place i."""
        return x.permute(self.dims)


class Expand(Op):
    """Repeat dimensions of size one without copying."""

    sizes: Ints

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` broadcast to ``sizes``; -1 keeps a dimension."""
        return x.expand(resolve(self.sizes, (x, *like)))


class Repeat(Op):
    """Tile a tensor."""

    repeats: Ints

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` repeated ``repeats[i]`` times along dimension i."""
        return x.repeat(resolve(self.repeats, (x, *like)))


class RepeatInterleave(Op):
    """Repeat each slice along one dimension in place."""

    repeats: int | Size
    dim: int | None = None

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` with every slice along ``dim`` repeated."""
        return x.repeat_interleave(resolve(self.repeats, (x, *like)), self.dim)


class Cat(Op):
    """Join tensors along a dimension."""

    dim: int = 0

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the operands one after the other along ``dim``."""
        return torch.cat(tensors, self.dim)


class Stack(Op):
    """Join tensors along a new dimension."""

    dim: int = 0

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the operands stacked at ``dim``."""
        return torch.stack(tensors, self.dim)


class Split(Op):
    """Cut a tensor into pieces along a dimension; stands for chunk as well."""

    sizes: Ints
    dim: int = 0

    def forward(self, x: Tensor, *like: Tensor) -> tuple[Tensor, ...]:
        """Return the pieces, ``sizes[i]`` long."""
        return torch.split(x, list(resolve(self.sizes, (x, *like))), self.dim)


class SplitEvenly(Op):
    """Cut a tensor into pieces of equal length along a dimension whose size is free."""

    size: int | Size
    dim: int = 0

    def forward(self, x: Tensor, *like: Tensor) -> tuple[Tensor, ...]:
        """Return pieces of length ``size``, the last may be shorter."""
        return torch.split(x, resolve(self.size, (x, *like)), self.dim)


class Unbind(Op):
    """Take a dimension apart."""

    dim: int = 0

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the slices along ``dim``."""
        return x.unbind(self.dim)


class Index(Op):
    """Index a tensor: ints, slices, None, an Ellipsis, and tensors where a `Slot` stands.

    Slot 0 is the indexed tensor; ``Slot(i)`` inside ``items`` is operand i.
    """

    items: tuple[Any, ...]

    def forward(self, x: Tensor, *operands: Tensor) -> Tensor:
        """Return ``x[items]``."""
        return x[fill(self.items, (x, *operands))]


class SetIndex(Op):
    """Write a value into a copy of a tensor; ``items`` as in `Index`, slot 1 is the value."""

    items: tuple[Any, ...]
    value: float | bool | None = None

    def forward(self, x: Tensor, *operands: Tensor) -> Tensor:
        """Return a copy of ``x`` whose ``[items]`` is the constant, or the first operand."""
        result = x.clone()
        value = operands[0] if self.value is None else self.value
        result[fill(self.items, (x, *operands))] = value
        return result


class Pad(Op):
    """Pad the last dimensions with a constant or by the mode."""

    pad: Ints
    mode: str = "constant"
    value: float | None = None

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` padded by (before, after) pairs, last dimension first."""
        return torch.nn.functional.pad(x, resolve(self.pad, (x, *like)), self.mode, self.value)


class Roll(Op):
    """Shift elements cyclically."""

    shifts: int | tuple[int, ...]
    dims: int | tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rolled by ``shifts`` along ``dims``."""
        return torch.roll(x, self.shifts, self.dims)  # type: ignore[arg-type]


class Flip(Op):
    """Reverse dimensions."""

    dims: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` reversed along ``dims``."""
        return torch.flip(x, self.dims)


class UnfoldDim(Op):
    """Slide a window along one dimension (``Tensor.unfold``)."""

    dimension: int
    size: int
    step: int

    def forward(self, x: Tensor) -> Tensor:
        """Return all windows of length ``size``, ``step`` apart, as a new last dimension."""
        return x.unfold(self.dimension, self.size, self.step)


class Contiguous(Op):
    """Lay the elements out row-major, or channels last."""

    channels_last: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with that memory layout."""
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


class Gather(Op):
    """Pick elements along a dimension."""

    dim: int

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return ``torch.gather(x, dim, index)``."""
        return torch.gather(x, self.dim, index)


class IndexSelect(Op):
    """Pick slices along a dimension."""

    dim: int

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the slices of ``x`` along ``dim`` at the positions ``index`` (1-D)."""
        return torch.index_select(x, self.dim, index)


class Triangle(Op):
    """Keep one triangle of the last two dimensions."""

    diagonal: int = 0
    upper: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with the other triangle zeroed."""
        return torch.triu(x, self.diagonal) if self.upper else torch.tril(x, self.diagonal)
