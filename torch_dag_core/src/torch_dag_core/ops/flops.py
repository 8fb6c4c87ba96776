"""FLOPs of one call, as polynomials in sizes: 2 x multiply-accumulates of contractions, plus elementwise work.

Sizes may be ints or differentiable scalars. An op without a rule costs one FLOP for each output element; ops
that only move data cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

Shapes = Sequence[Sequence[Any]]
Parameters = Mapping[str, Sequence[Any]]


def numel(shape: Sequence[Any]) -> Any:
    """Return the number of elements."""
    return math.prod(shape)


def free(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Moving data costs nothing."""
    del module, inputs, outputs, parameters
    return 0


def per_output(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """One FLOP for each output element."""
    del module, inputs, parameters
    return sum(numel(shape) for shape in outputs)


def per_input(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """One FLOP for each element of the first input."""
    del module, outputs, parameters
    return numel(inputs[0])


def times_output(count: int) -> Any:
    """Return a rule of ``count`` FLOPs for each output element."""

    def rule(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
        return count * per_output(module, inputs, outputs, parameters)

    return rule


def linear(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """``2 x outputs x in_features``, plus the bias."""
    del module
    bias = numel(outputs[0]) if "bias" in parameters else 0
    return 2 * numel(outputs[0]) * inputs[0][-1] + bias


def linear_function(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """`linear`, with the bias as an operand."""
    del module, parameters
    bias = numel(outputs[0]) if len(inputs) > 2 else 0
    return 2 * numel(outputs[0]) * inputs[0][-1] + bias


def convolution(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """``2 x outputs x (in / groups) x kernel``, plus the bias."""
    del module, inputs
    bias = numel(outputs[0]) if "bias" in parameters else 0
    return 2 * numel(outputs[0]) * numel(parameters["weight"][1:]) + bias


def convolution_function(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """`convolution`, with weight and bias as operands."""
    del module, parameters
    bias = numel(outputs[0]) if len(inputs) > 2 else 0
    return 2 * numel(outputs[0]) * numel(inputs[1][1:]) + bias


def transposed_convolution(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """``2 x inputs x (out / groups) x kernel``, plus the bias."""
    del module
    bias = numel(outputs[0]) if "bias" in parameters else 0
    return 2 * numel(inputs[0]) * numel(parameters["weight"][1:]) + bias


def transposed_convolution_function(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """`transposed_convolution`, with weight and bias as operands."""
    del module, parameters
    bias = numel(outputs[0]) if len(inputs) > 2 else 0
    return 2 * numel(inputs[0]) * numel(inputs[1][1:]) + bias


def matmul(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """``2 x outputs x contracted``."""
    del module, parameters
    return 2 * numel(outputs[0]) * inputs[0][-1]


def einsum(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """``2 x`` the product of all index sizes, once for each operand after the first."""
    del outputs, parameters
    terms = module.equation.partition("->")[0].split(",")
    sizes: dict[str, Any] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sizes |= dict(zip(reversed(term.replace("...", "")), reversed(list(shape)), strict=False))
    return 2 * max(len(inputs) - 1, 1) * math.prod(sizes.values())


def attention(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Two products and a softmax: q k^T, then weights times v."""
    del module, parameters
    query, key, value = inputs[:3]
    scores = numel(query[:-1]) * key[-2]
    return 2 * scores * query[-1] + 5 * scores + 2 * numel(outputs[0]) * value[-2]


def window(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """One FLOP for each output element and place of the pooling window."""
    del parameters
    size = module.kernel_size
    rank = len(inputs[0]) - 2
    places = size**rank if isinstance(size, int) else math.prod(size)
    return numel(outputs[0]) * places


def self_attention(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Projections, then `attention` within each head."""
    tokens, dim = inputs[0][-2:]
    rows, inner = numel(inputs[0][:-1]), parameters["proj.weight"][1]
    head = (inputs[0][0], module.num_heads, tokens, module.head_dim)
    mixing = attention(module, (head, head, head), (head,), parameters)
    biases = rows * sum(parameters[name][0] for name in ("qkv.bias", "proj.bias") if name in parameters)
    return 2 * rows * (3 * inner * dim + inner * outputs[0][-1]) + biases + mixing
