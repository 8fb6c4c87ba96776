"""Ops that move, select, join or repeat elements without computing on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, fill, resolve
from torch_dag_core.ops.flops import free, per_input
from torch_dag_core.plugins.declarations import declare, op

Ints = tuple[int | Size, ...]


@op("core.pack", flops=free)
class Pack(Op):
    """Put values into one tuple, for modules that take several tensors as one argument."""

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the operands as a tuple."""
        return values


@op("core.reshape", flops=free)
class Reshape(Op):
    """Change the shape, row-major; also for view, flatten, squeeze and unsqueeze."""

    shape: Ints

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` in ``shape``, which holds ints, at most one -1, and sizes of operands."""
        return x.reshape(resolve(self.shape, (x, *like)))


@op("core.permute", flops=free)
class Permute(Op):
    """Reorder dimensions; also for transpose."""

    dims: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with its dimension ``dims[i]`` as dimension i."""
        return x.permute(self.dims)


@op("core.expand", flops=free)
class Expand(Op):
    """Broadcast to larger sizes without copying."""

    sizes: Ints

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` broadcast to ``sizes``; -1 keeps a dimension."""
        return x.expand(resolve(self.sizes, (x, *like)))


@op("core.repeat", flops=free)
class Repeat(Op):
    """Repeat a whole tensor along its dimensions."""

    repeats: Ints

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` repeated ``repeats[i]`` times along dimension i."""
        return x.repeat(resolve(self.repeats, (x, *like)))


@op("core.repeat_interleave", flops=free)
class RepeatInterleave(Op):
    """Repeat each slice along one dimension, with its copies next to each other."""

    repeats: int | Size
    dim: int | None = None

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` with every slice along ``dim`` repeated; None repeats the elements of the flattened tensor."""
        return x.repeat_interleave(resolve(self.repeats, (x, *like)), self.dim)


@op("core.cat", functions=("cat", "concat", "concatenate"), flops=free)
class Cat(Op):
    """Concatenate tensors along a dimension."""

    dim: int = 0

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return ``torch.cat(tensors, dim)``."""
        return torch.cat(tensors, self.dim)


@op("core.stack", functions=("stack",), flops=free)
class Stack(Op):
    """Stack tensors along a new dimension."""

    dim: int = 0

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return ``torch.stack(tensors, dim)``."""
        return torch.stack(tensors, self.dim)


@op("core.split", flops=free)
class Split(Op):
    """Split a tensor into pieces along a dimension; also for chunk."""

    sizes: Ints
    dim: int = 0

    def forward(self, x: Tensor, *like: Tensor) -> tuple[Tensor, ...]:
        """Return the pieces; piece i has size ``sizes[i]``."""
        return torch.split(x, list(resolve(self.sizes, (x, *like))), self.dim)


@op("core.unbind", flops=free)
class Unbind(Op):
    """Split a tensor into its slices along a dimension."""

    dim: int = 0

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the slices along ``dim``."""
        return x.unbind(self.dim)


@op("core.index", flops=free)
class Index(Op):
    """Index a tensor by ints, slices, None, an Ellipsis and tensors.

    Tensors in ``items`` are written as `Slot`: ``Slot(i)`` is operand i, where operand 0 is the indexed tensor.
    """

    items: tuple[Any, ...]

    def forward(self, x: Tensor, *operands: Tensor) -> Tensor:
        """Return ``x[items]``."""
        return x[fill(self.items, (x, *operands))]


def set_index(x: Tensor, items: Any, value: Any) -> Tensor:
    """Return a copy of ``x`` in which ``[items]`` is the value."""
    result = x.clone()
    result[items] = value
    return result


@op("core.set_index", flops=free)
class SetIndex(Op):
    """Write a value into a copy of a tensor.

    ``items`` is as in `Index`. The value is the constant ``value``, or operand 1 if that is None.
    """

    items: tuple[Any, ...]
    value: float | bool | None = None

    def forward(self, x: Tensor, *operands: Tensor) -> Tensor:
        """Return a copy of ``x`` in which ``[items]`` is the value."""
        value = operands[0] if self.value is None else self.value
        return set_index(x, fill(self.items, (x, *operands)), value)


@op("core.pad", flops=free)
class Pad(Op):
    """Pad the last dimensions with a constant, or by another mode of ``functional.pad``."""

    pad: Ints
    mode: str = "constant"
    value: float | None = None

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return ``x`` padded by (before, after) pairs, starting with the last dimension."""
        return torch.nn.functional.pad(x, resolve(self.pad, (x, *like)), self.mode, self.value)


@op("core.roll", flops=free)
class Roll(Op):
    """Shift elements cyclically."""

    shifts: int | tuple[int, ...]
    dims: int | tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rolled by ``shifts`` along ``dims``."""
        return torch.roll(x, self.shifts, self.dims)  # type: ignore[arg-type]


@op("core.flip", flops=free)
class Flip(Op):
    """Reverse the order of elements along dimensions."""

    dims: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` reversed along ``dims``."""
        return torch.flip(x, self.dims)


@op("core.unfold_dim", flops=free)
class UnfoldDim(Op):
    """Extract sliding windows along one dimension (``Tensor.unfold``)."""

    dimension: int
    size: int
    step: int

    def forward(self, x: Tensor) -> Tensor:
        """Return the windows of length ``size`` every ``step`` elements; their elements are a new last dimension."""
        return x.unfold(self.dimension, self.size, self.step)


@op("core.gather", flops=free)
class Gather(Op):
    """Select elements along a dimension."""

    dim: int

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return ``torch.gather(x, dim, index)``."""
        return torch.gather(x, self.dim, index)


@op("core.index_select", flops=free)
class IndexSelect(Op):
    """Select slices along a dimension."""

    dim: int

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the slices of ``x`` along ``dim`` at the positions ``index`` (1-D)."""
        return torch.index_select(x, self.dim, index)


@op("core.triangle", flops=free)
class Triangle(Op):
    """Keep the upper or lower triangle of the last two dimensions."""

    diagonal: int = 0
    upper: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``torch.triu(x, diagonal)`` or ``torch.tril(x, diagonal)``."""
        return torch.triu(x, self.diagonal) if self.upper else torch.tril(x, self.diagonal)


MODULES = (
    declare("core.identity", nn.Identity, flops=free),
    declare("core.flatten", nn.Flatten, flops=free),
    declare("core.unflatten", nn.Unflatten, flops=free),
    declare("core.zero_pad1d", nn.ZeroPad1d, flops=free),
    declare("core.zero_pad2d", nn.ZeroPad2d, flops=free),
    declare("core.zero_pad3d", nn.ZeroPad3d, flops=free),
    declare("core.constant_pad1d", nn.ConstantPad1d, flops=free),
    declare("core.constant_pad2d", nn.ConstantPad2d, flops=free),
    declare("core.constant_pad3d", nn.ConstantPad3d, flops=free),
    declare("core.reflection_pad1d", nn.ReflectionPad1d, flops=free),
    declare("core.reflection_pad2d", nn.ReflectionPad2d, flops=free),
    declare("core.reflection_pad3d", nn.ReflectionPad3d, flops=free),
    declare("core.replication_pad1d", nn.ReplicationPad1d, flops=free),
    declare("core.replication_pad2d", nn.ReplicationPad2d, flops=free),
    declare("core.replication_pad3d", nn.ReplicationPad3d, flops=free),
    declare("core.circular_pad1d", nn.CircularPad1d, flops=free),
    declare("core.circular_pad2d", nn.CircularPad2d, flops=free),
    declare("core.circular_pad3d", nn.CircularPad3d, flops=free),
    declare("core.pixel_shuffle", nn.PixelShuffle, flops=free),
    declare("core.pixel_unshuffle", nn.PixelUnshuffle, flops=free),
    declare("core.channel_shuffle", nn.ChannelShuffle, flops=free),
    declare("core.unfold", nn.Unfold, flops=free),
    declare("core.fold", nn.Fold, flops=per_input),
)
