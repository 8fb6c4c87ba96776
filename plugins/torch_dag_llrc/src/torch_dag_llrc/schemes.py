"""Factorisations of a layer into a chain of smaller layers, and their cost at every rank.

A layer maps m channels to n with a kernel of kh x kw, and k is the rank: the number of channels between the factors.
Costs are FLOPs of one sample, two for each multiply-accumulate. The last factor has the bias.

| scheme | factors | multiply-accumulates |
|---|---|---|
| linear | m -> k (with the stride), k -> n | k (m + n) per output pixel |
| in | 1x1 m -> k, then kh x kw k -> n | k m per input pixel, k n kh kw per output pixel |
| out | kh x kw m -> k, then 1x1 k -> n | k (m kh kw + n) per output pixel |
| spatial | kh x 1 m -> k, then 1 x kw k -> n | k m kh per pixel in between, k n kw per output pixel |
| tucker2 | 1x1 m -> r1, kh x kw r1 -> r2, 1x1 r2 -> n | with r1 = min(k, m) and r2 = min(k, n) |
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """The sizes of a linear layer or convolution; a linear layer has a kernel of 1 x 1.

    Attributes:
        inputs: Number of input channels, m.
        outputs: Number of output channels, n.
        kernel: Height and width of the kernel.
        pixels_in: Number of rows or pixels of the input, for one sample.
        pixels_between: Number of pixels after a kernel of kh x 1 with the vertical stride.
        pixels_out: Number of rows or pixels of the output.
        biased_outputs: Number of output channels with a bias; some may lack one if several layers are stacked.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    pixels_in: int
    pixels_between: int
    pixels_out: int
    biased_outputs: int

    @property
    def taps(self) -> int:
        """Number of kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def bias_flops(self) -> int:
        """FLOPs of adding the bias."""
        return self.biased_outputs * self.pixels_out

    @property
    def dense_flops(self) -> int:
        """FLOPs of the unfactored layer."""
        return 2 * self.inputs * self.outputs * self.taps * self.pixels_out + self.bias_flops


def _linear(sizes: LayerSizes, k: int) -> int:
    return k * (sizes.inputs + sizes.outputs) * sizes.pixels_out


def _in(sizes: LayerSizes, k: int) -> int:
    return k * (sizes.inputs * sizes.pixels_in + sizes.outputs * sizes.taps * sizes.pixels_out)


def _out(sizes: LayerSizes, k: int) -> int:
    return k * (sizes.inputs * sizes.taps + sizes.outputs) * sizes.pixels_out


def _spatial(sizes: LayerSizes, k: int) -> int:
    height, width = sizes.kernel
    return k * (sizes.inputs * height * sizes.pixels_between + sizes.outputs * width * sizes.pixels_out)


def _tucker2(sizes: LayerSizes, k: int) -> int:
    first, second = min(k, sizes.inputs), min(k, sizes.outputs)
    inner = first * second * sizes.taps + second * sizes.outputs
    return sizes.inputs * first * sizes.pixels_in + inner * sizes.pixels_out


@dataclass(frozen=True)
class Scheme:
    """One way to factor a layer.

    Attributes:
        name: Its name in settings and reports.
        multiply_accumulates: Returns the number of multiply-accumulates of a layer at a rank.
        max_rank: Returns the rank at which the factorisation is exact.
        fits: Returns whether the scheme applies to the kernel of a layer.
    """

    name: str
    multiply_accumulates: Callable[[LayerSizes, int], int]
    max_rank: Callable[[LayerSizes], int]
    fits: Callable[[LayerSizes], bool]


def _is_pointwise(sizes: LayerSizes) -> bool:
    return sizes.taps == 1


def _has_window(sizes: LayerSizes) -> bool:
    return sizes.taps > 1


def _has_two_sides(sizes: LayerSizes) -> bool:
    return min(sizes.kernel) > 1


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("linear", _linear, lambda s: min(s.inputs, s.outputs), _is_pointwise),
        Scheme("in", _in, lambda s: min(s.inputs, s.outputs * s.taps), _has_window),
        Scheme("out", _out, lambda s: min(s.inputs * s.taps, s.outputs), _has_window),
        Scheme("spatial", _spatial, lambda s: min(s.inputs * s.kernel[0], s.outputs * s.kernel[1]), _has_two_sides),
        Scheme("tucker2", _tucker2, lambda s: max(s.inputs, s.outputs), _has_window),
    )
}


@dataclass(frozen=True)
class CostTable:
    """The cost of one layer at every rank of one scheme."""

    scheme: str
    sizes: LayerSizes

    @property
    def max_rank(self) -> int:
        """The rank at which the factorisation is exact."""
        return SCHEMES[self.scheme].max_rank(self.sizes)

    @property
    def break_even(self) -> int:
        """The largest rank that costs less than the unfactored layer, at most ``max_rank``; 0 if no rank does."""
        dense = self.sizes.dense_flops
        return bisect_left(range(1, self.max_rank + 1), dense, key=self.flops)

    def flops(self, rank: int) -> int:
        """Return the FLOPs of one sample at a rank.

        Raises:
            ValueError: the rank is below 1 or above ``max_rank``.
        """
        if not 1 <= rank <= self.max_rank:
            message = f"scheme {self.scheme!r} of this layer has the ranks 1..{self.max_rank}, got {rank}"
            raise ValueError(message)
        return 2 * SCHEMES[self.scheme].multiply_accumulates(self.sizes, rank) + self.sizes.bias_flops


def tables(sizes: LayerSizes, wanted: str) -> tuple[CostTable, ...]:
    """Return the tables of the schemes that fit a layer.

    ``wanted`` is the name of a scheme for convolutions, or ``auto`` for all; linear layers have one scheme.
    """
    names = [name for name, scheme in SCHEMES.items() if scheme.fits(sizes)]
    return tuple(CostTable(name, sizes) for name in names if wanted in ("auto", name) or name == "linear")
