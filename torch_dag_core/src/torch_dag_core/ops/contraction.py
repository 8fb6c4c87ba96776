"""Matrix products, convolutions, embeddings and attention; ops named ``...Function`` take their weights as operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, resolve
from torch_dag_core.ops.flops import Parameters, Shapes, free, numel
from torch_dag_core.plugins.declarations import declare, op

# Products --------------------------------------------------------------------------------------------------------


def matmul(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return ``2 x outputs x size of the contracted dimension``."""
    del module, parameters
    return 2 * numel(outputs[0]) * inputs[0][-1]


@op("core.matmul", flops=matmul)
class Matmul(Op):
    """Matrix product with broadcast batch dimensions, also for ``bmm`` and ``mm``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x @ y``."""
        return torch.matmul(x, y)


def einsum(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of contracting the operands from left to right; a single operand is only summed."""
    del outputs, parameters
    terms, result = module.terms([len(shape) for shape in inputs])
    sizes: dict[str, Any] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sizes |= {letter: size for letter, size in zip(term, shape, strict=True) if not _is_one(size)}
    if len(terms) == 1:
        return numel(inputs[0])
    cost, held = 0, set(terms[0])
    for place, term in enumerate(terms[1:], start=1):
        together = held | set(term)
        held = together & {*result, *(letter for later in terms[place + 1 :] for letter in later)}
        work = 1 if held == together else 2  # If no letter is summed, there are multiplications without additions.
        cost += work * math.prod(sizes.get(letter, 1) for letter in sorted(together))
    return cost


@op("core.einsum", flops=einsum)
class Einsum(Op):
    """Sum of products in Einstein notation."""

    equation: str

    def forward(self, *operands: Tensor) -> Tensor:
        """Return ``torch.einsum(equation, *operands)``."""
        return torch.einsum(self.equation, *operands)

    def terms(self, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
        """Return a letter for each dimension of each operand, and of the result.

        The dimensions of an ellipsis are named by digits, counted from the right.

        Args:
            ranks: Number of dimensions of each operand.
        """
        left, arrow, right = self.equation.replace(" ", "").partition("->")
        terms = [_letters(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
        dots = max((sum(letter.isdigit() for letter in term) for term in terms), default=0)
        if arrow:
            return terms, _letters(right, len(right.replace("...", "")) + (dots if "..." in right else 0))
        flat = [letter for term in terms for letter in term if not letter.isdigit()]
        once = sorted(letter for letter in set(flat) if flat.count(letter) == 1)
        return terms, [*_numbered(dots), *once]


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _letters(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(_numbered(rank - len(before) - len(after)) if dots else ()), *after]


def _numbered(count: int) -> list[str]:
    return [str(place) for place in reversed(range(count))]


# Affine maps -----------------------------------------------------------------------------------------------------


def linear(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return ``2 x outputs x in_features``, plus one FLOP per output for the bias."""
    del module
    return _affine(inputs, outputs, has_bias="bias" in parameters)


def linear_function(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the same as `linear`, with the bias as third operand."""
    del module, parameters
    return _affine(inputs, outputs, has_bias=len(inputs) > 2)


def _affine(inputs: Shapes, outputs: Shapes, *, has_bias: bool) -> Any:
    return 2 * numel(outputs[0]) * inputs[0][-1] + (numel(outputs[0]) if has_bias else 0)


def bilinear(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of contracting the weight (out, first, second) with the first operand, then the second."""
    del module, inputs
    weight = parameters["weight"]
    rows = numel(outputs[0][:-1])
    bias = numel(outputs[0]) if "bias" in parameters else 0
    return 2 * rows * numel(weight) + 2 * rows * weight[0] * weight[2] + bias


@op("core.linear_function", flops=linear_function)
class LinearFunction(Op):
    """Affine map whose weight and optional bias are operands."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x @ weight.T + bias``: x (..., in), weight (out, in), bias (out)."""
        return functional.linear(x, weight, bias)


# Convolutions ----------------------------------------------------------------------------------------------------


def convolution(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return ``2 x outputs x (in / groups) x kernel``, plus one FLOP per output for the bias."""
    del module, inputs
    return _slid(outputs[0], parameters["weight"], outputs[0], has_bias="bias" in parameters)


def convolution_function(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the same as `convolution`, with weight and bias as operands."""
    del module, parameters
    return _slid(outputs[0], inputs[1], outputs[0], has_bias=len(inputs) > 2)


def transposed_convolution(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return ``2 x inputs x (out / groups) x kernel``, plus one FLOP per output for the bias."""
    del module
    return _slid(inputs[0], parameters["weight"], outputs[0], has_bias="bias" in parameters)


def transposed_convolution_function(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the same as `transposed_convolution`, with weight and bias as operands."""
    del module, parameters
    return _slid(inputs[0], inputs[1], outputs[0], has_bias=len(inputs) > 2)


def _slid(positions: Sequence[Any], weight: Sequence[Any], output: Sequence[Any], *, has_bias: bool) -> Any:
    """Return the FLOPs of applying a weight (channels, each, *kernel) at every element of ``positions``."""
    return 2 * numel(positions) * numel(weight[1:]) + (numel(output) if has_bias else 0)


@op("core.convolution", flops=convolution_function)
class Convolution(Op):
    """Convolution whose weight and optional bias are operands."""

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int | Size
    functions: ClassVar = (functional.conv1d, functional.conv2d, functional.conv3d)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the convolution of x (batch, in, *space) with weight (out, in / groups, *kernel)."""
        function = self.functions[len(self.stride) - 1]
        groups = resolve(self.groups, (x, weight))
        return function(x, weight, bias, self.stride, self.padding, self.dilation, groups)


@op("core.transposed_convolution", flops=transposed_convolution_function)
class TransposedConvolution(Op):
    """Transposed convolution whose weight and optional bias are operands."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    dilation: tuple[int, ...]
    functions: ClassVar = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the transposed convolution of x (batch, in, *space) with weight (in, out / groups, *kernel)."""
        function = self.functions[len(self.stride) - 1]
        return function(x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation)


# Tables and attention --------------------------------------------------------------------------------------------


@op("core.embedding_function", flops=free)
class EmbeddingFunction(Op):
    """Lookup of rows in a table that is an operand."""

    padding_idx: int | None = None

    def forward(self, index: Tensor, table: Tensor) -> Tensor:
        """Return ``table[index]``: index (...), table (rows, width)."""
        return functional.embedding(index, table, self.padding_idx)


def attention(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of the scores ``q k^T``, a softmax (five per score), and the product with the values."""
    del module, parameters
    query, key, value = inputs[:3]
    scores = numel(query[:-1]) * key[-2]
    return 2 * scores * query[-1] + 5 * scores + 2 * numel(outputs[0]) * value[-2]


@op("core.scaled_dot_product_attention", flops=attention)
class ScaledDotProductAttention(Op):
    """Fused attention; ``dropout_p`` applies in training mode only."""

    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``softmax(q k^T scale + mask) v``: q (..., n, d), k (..., m, d), v (..., m, e)."""
        dropout = self.dropout_p if self.training else 0.0
        return functional.scaled_dot_product_attention(
            query, key, value, mask, dropout, self.is_causal, scale=self.scale, enable_gqa=self.enable_gqa
        )


MODULES = (
    declare("core.linear", nn.Linear, flops=linear),
    declare("core.bilinear", nn.Bilinear, flops=bilinear),
    declare("core.conv1d", nn.Conv1d, flops=convolution),
    declare("core.conv2d", nn.Conv2d, flops=convolution),
    declare("core.conv3d", nn.Conv3d, flops=convolution),
    declare("core.conv_transpose1d", nn.ConvTranspose1d, flops=transposed_convolution),
    declare("core.conv_transpose2d", nn.ConvTranspose2d, flops=transposed_convolution),
    declare("core.conv_transpose3d", nn.ConvTranspose3d, flops=transposed_convolution),
    declare("core.embedding", nn.Embedding, flops=free),
)
