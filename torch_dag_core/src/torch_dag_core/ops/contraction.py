"""Ops that contract over a dimension, with weights that are tensors of the graph."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, resolve


class Matmul(Op):
    """Matrix product with broadcast batch dimensions; stands for bmm and mm as well."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x @ y``."""
        return torch.matmul(x, y)


class Einsum(Op):
    """Sum of products in Einstein notation."""

    equation: str

    def forward(self, *operands: Tensor) -> Tensor:
        """Return ``torch.einsum(equation, *operands)``."""
        return torch.einsum(self.equation, *operands)


class LinearFunction(Op):
    """Affine map whose weight (and bias) are computed tensors."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x @ weight.T + bias``: x (..., in), weight (out, in), bias (out)."""
        return functional.linear(x, weight, bias)


class Convolution(Op):
    """Convolution whose weight (and bias) are computed tensors."""

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


class TransposedConvolution(Op):
    """Transposed convolution whose weight (and bias) are computed tensors."""

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


class EmbeddingFunction(Op):
    """Rows of a computed table."""

    padding_idx: int | None = None

    def forward(self, index: Tensor, table: Tensor) -> Tensor:
        """Return ``table[index]``: index (...), table (rows, width)."""
        return functional.embedding(index, table, self.padding_idx)


class ScaledDotProductAttention(Op):
    """Fused attention; ``dropout_p`` acts in training only."""

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
