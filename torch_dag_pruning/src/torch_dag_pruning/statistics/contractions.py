"""Ops that multiply their operand by a learned matrix, seen as such: rows of operands, rows of results, the matrix.

The result of a linear layer or convolution at one position is ``W x + b``, where x is the vector that the op sums over
there: for a convolution, the patch under its kernel. A group of a grouped convolution has a matrix of its own. So all
matrices have the shape (groups, outs, columns), rows of operands (groups, rows, columns), and rows of results
(groups, rows, outs). The columns of a convolution are its channels times the taps of its kernel, channels first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import Registry


@dataclass(frozen=True)
class Contraction:
    """How an op multiplies its only operand by its ``weight`` and adds its ``bias``.

    Attributes:
        operand: Gives the rows of an operand at places; a zero stands for padding.
        result: Gives the rows of a result at places.
        matrix: Gives the matrix of a weight.
        weight: Gives the weight of a matrix, in the shape of the module's own.
        channel: The dimension of operand and result that is multiplied, from the right if negative.
    """

    operand: Callable[[Any, Tensor, Places], Tensor]
    result: Callable[[Any, Tensor, Places], Tensor]
    matrix: Callable[[Any, Tensor], Tensor]
    weight: Callable[[Any, Tensor], Tensor]
    channel: int


@dataclass(frozen=True)
class Places:
    """Positions of a result at which rows are taken, for each sample.

    Attributes:
        index: Flat positions, of shape (samples, places).
        shape: The sizes of the dimensions that the flat positions run over.
    """

    index: Tensor
    shape: tuple[int, ...]

    @classmethod
    def drawn(cls, result: Tensor, channel: int, most: int, generator: torch.Generator) -> Places:
        """Return up to ``most`` different random positions of each sample, all of them if there are no more.

        Args:
            result: What the op gave; its first dimension counts samples.
            channel: The dimension that is no position.
            most: Bound on the positions of one sample.
            generator: Source of random numbers, on the CPU.
        """
        samples, *shape = _without(result.shape, channel)
        total = math.prod(shape)
        if total <= most:
            index = torch.arange(total).expand(samples, total)
        else:
            index = torch.rand(samples, total, generator=generator).topk(most).indices
        return cls(index.to(result.device), tuple(shape))

    def taken(self, flat: Tensor) -> Tensor:
        """Return the chosen positions of a tensor (samples, channels, positions) as (samples, channels, places)."""
        return flat.gather(2, self.index[:, None].expand(-1, flat.shape[1], -1))


def _without(shape: torch.Size, channel: int) -> list[int]:
    """Return the sizes of all dimensions but one; a first one of size 1 where nothing counts samples."""
    sizes = [size for dim, size in enumerate(shape) if dim != channel % len(shape)]
    return sizes or [1]


def contraction_of(vertex: InnerVertex, registry: Registry) -> Contraction | None:
    """Return how the op of a vertex multiplies by a learned matrix; None if it does not, or in no known way."""
    spec = registry.for_module(vertex.module)
    return None if spec is None else CONTRACTIONS.get(spec.key)


# Linear layers ---------------------------------------------------------------------------------------------------


def _linear_rows(module: Any, tensor: Tensor, places: Places) -> Tensor:
    del module
    flat = tensor.reshape(places.index.shape[0], -1, tensor.shape[-1]).transpose(1, 2)
    return places.taken(flat).transpose(1, 2).reshape(1, -1, tensor.shape[-1])


def _linear_matrix(module: Any, weight: Tensor) -> Tensor:
    del module
    return weight[None]


def _linear_weight(module: Any, matrix: Tensor) -> Tensor:
    del module
    return matrix[0]


# Convolutions ----------------------------------------------------------------------------------------------------


def _grouped(module: Any, picked: Tensor) -> Tensor:
    """Return (samples, channels, places, *taps) as (groups, rows, columns)."""
    samples, channels, places, *taps = picked.shape
    split = picked.reshape(samples, module.groups, channels // module.groups, places, math.prod(taps))
    return split.permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)


def _convolved(module: Any, result: Tensor, places: Places) -> Tensor:
    return _grouped(module, places.taken(result.flatten(2)))


def _patches(module: Any, x: Tensor, places: Places) -> Tensor:
    """Return what lies under the kernel at each place."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    corner = [
        (at * stride)[..., None] + _steps(kernel, dilation, at)
        for at, stride, kernel, dilation in zip(
            _coordinates(places), module.stride, module.kernel_size, module.dilation, strict=True
        )
    ]
    return _picked(module, padded, corner, None)


def _transposed_patches(module: Any, x: Tensor, places: Places) -> Tensor:
    """Return the elements that each place of a transposed convolution is a sum of, in the order of the taps."""
    coordinates, valid = [], []
    for at, stride, kernel, dilation, padding, size in zip(
        _coordinates(places), module.stride, module.kernel_size, module.dilation, module.padding, x.shape[2:],
        strict=True,
    ):  # fmt: skip
        distance = (at + padding)[..., None] - _steps(kernel, dilation, at)
        source = torch.div(distance, stride, rounding_mode="floor")
        valid.append((distance % stride == 0) & (source >= 0) & (source < size))
        coordinates.append(source.clamp(0, size - 1))
    return _picked(module, x, coordinates, valid)


def _coordinates(places: Places) -> list[Tensor]:
    return list(torch.unravel_index(places.index, places.shape))


def _steps(kernel: int, dilation: int, like: Tensor) -> Tensor:
    return torch.arange(kernel, device=like.device) * dilation


def _picked(module: Any, x: Tensor, coordinates: list[Tensor], valid: list[Tensor] | None) -> Tensor:
    """Gather x at all combinations of coordinates (samples, places, taps), one tensor for each spatial dimension."""
    index = _combined(coordinates, x.shape[2:])
    samples, places, taps = index.shape
    flat = x.flatten(2)
    picked = flat.gather(2, index.reshape(samples, 1, -1).expand(-1, flat.shape[1], -1))
    picked = picked.reshape(samples, flat.shape[1], places, taps)
    if valid is not None:
        picked = picked * _all(valid)[:, None]
    return _grouped(module, picked)


def _combined(coordinates: list[Tensor], sizes: torch.Size) -> Tensor:
    index = coordinates[0]
    for more, size in itertools.zip_longest(coordinates[1:], sizes[1:]):
        index = (index[..., :, None] * size + more[..., None, :]).flatten(2)
    return index


def _all(valid: list[Tensor]) -> Tensor:
    together = valid[0]
    for more in valid[1:]:
        together = (together[..., :, None] & more[..., None, :]).flatten(2)
    return together


def _convolution_matrix(module: Any, weight: Tensor) -> Tensor:
    return weight.reshape(module.groups, weight.shape[0] // module.groups, -1)


def _convolution_weight(module: Any, matrix: Tensor) -> Tensor:
    return matrix.reshape(tuple(module.weight.shape))


def _transposed_matrix(module: Any, weight: Tensor) -> Tensor:
    channels, outs = weight.shape[:2]
    split = weight.reshape(module.groups, channels // module.groups, outs, -1)
    return split.transpose(1, 2).flatten(2)


def _transposed_weight(module: Any, matrix: Tensor) -> Tensor:
    groups, outs, _ = matrix.shape
    split = matrix.reshape(groups, outs, module.weight.shape[0] // groups, -1)
    return split.transpose(1, 2).reshape(tuple(module.weight.shape))


_LINEAR = Contraction(_linear_rows, _linear_rows, _linear_matrix, _linear_weight, channel=-1)
_CONVOLUTION = Contraction(_patches, _convolved, _convolution_matrix, _convolution_weight, channel=1)
_TRANSPOSED = Contraction(_transposed_patches, _convolved, _transposed_matrix, _transposed_weight, channel=1)

CONTRACTIONS = {
    "core.linear": _LINEAR,
    **{f"core.conv{dims}d": _CONVOLUTION for dims in (1, 2, 3)},
    **{f"core.conv_transpose{dims}d": _TRANSPOSED for dims in (1, 2, 3)},
}
"""The ops that statistics are taken of and that recovery solves, by key."""
