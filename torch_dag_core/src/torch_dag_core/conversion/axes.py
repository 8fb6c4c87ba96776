"""Which dimensions of inputs may be free besides the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axes:
    """Dimensions that are free together.

    Attributes:
        name: What notes call them.
        dims: The dimensions of an input, by its rank.
        others: What notes call the rest of the image, which is fixed where these alone are free.
        is_integer: Whether inputs of integers are meant, as token ids, instead of those of floating-point numbers.
        is_noted: Whether a note says why these are fixed; the others are guesses at what an input is.
    """

    name: str
    dims: Mapping[int, tuple[int, ...]]
    others: str | None = None
    is_integer: bool = False
    is_noted: bool = False

    def of(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the dimensions of one input; none where it has no such axes."""
        is_meant = tensor.is_floating_point() != self.is_integer
        return self.dims.get(tensor.dim(), ()) if is_meant else ()


IMAGE = Axes("image size", {4: (2, 3), 5: (3, 4)}, is_noted=True)
AXES = (
    Axes("size", {5: (2, 3, 4)}),
    IMAGE,
    Axes("width", {4: (3,), 5: (4,)}, "height"),
    Axes("height", {4: (2,), 5: (3,)}, "width"),
    Axes("depth", {5: (2,)}),
    Axes("length of the last dimension", {3: (2,)}),
    Axes("length", {3: (1,)}, is_noted=True),
    Axes("number of tokens", {2: (1,)}, is_integer=True, is_noted=True),
)
"""In the order in which they are tried: what is free together before what is free alone."""
