"""Ways to write a layer as a chain of thinner ones, and what each costs at every rank.

A layer maps m channels to n through a kernel of kh x kw. ``k`` is the width between the factors. Costs are FLOPs of one
sample, two for each multiply-accumulate; the bias sits on the last factor.

| scheme | factors | multiply-accumulates |
|---|---|---|
| linear | m -> k (with the stride), k -> n | k (m + n) by output pixel |
| in | 1x1 m -> k, then kh x kw k -> n | k m by input pixel, k n kh kw by output pixel |
| out | kh x kw m -> k, then 1x1 k -> n | k (m kh kw + n) by output pixel |
| spatial | kh x 1 m -> k, then 1 x kw k -> n | k m kh by pixel between, k n kw by output pixel |
| tucker2 | 1x1 m -> r1, kh x kw r1 -> r2, 1x1 r2 -> n | with r1 = min(k, m) and r2 = min(k, n) |
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """The sizes of one linear map, with a kernel of 1 x 1 where it is no convolution.

    Attributes:
        inputs: Channels in, m.
        outputs: Channels out, n.
        kernel: Height and width of the kernel.
        pixels_in: Rows or pixels of all inputs of one sample.
        pixels_between: Pixels after a kernel of kh x 1 with the vertical stride.
        pixels_out: Rows or pixels of all outputs.
        biased_outputs: Channels out that a bias is added to: all, none, or those of some of several stacked layers.
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
        """Places of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def bias_flops(self) -> int:
        """FLOPs of the bias."""
        return self.biased_outputs * self.pixels_out

    @property
    def dense_flops(self) -> int:
        """FLOPs of the layer as it is."""
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
        multiply_accumulates: Cost of a layer at rank k.
        max_rank: The rank at which nothing is lost.
        fits: Whether the scheme makes sense for a kernel.
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
    """What one layer costs under one scheme at every rank."""

    scheme: str
    sizes: LayerSizes

    @property
    def max_rank(self) -> int:
        """The rank at which nothing is lost."""
        return SCHEMES[self.scheme].max_rank(self.sizes)

    @property
    def break_even(self) -> int:
        """The largest rank up to ``max_rank`` that costs less than the layer as it is; 0 if none does."""
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
    """Return the tables of the schemes that fit a layer; ``wanted`` names one for convolutions, or ``auto``."""
    names = [name for name, scheme in SCHEMES.items() if scheme.fits(sizes)]
    return tuple(CostTable(name, sizes) for name in names if wanted in ("auto", name) or name == "linear")
