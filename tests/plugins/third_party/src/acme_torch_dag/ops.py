"""What torch-dag has to know of Acme's modules and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acme_torch_dag.modules import AcmeNet, AlwaysClip, OutlierClip, snake
from torch_dag_core.conversion import Call, Value
from torch_dag_core.graph.op import Op
from torch_dag_core.plugins.declarations import declare, op
from torch_dag_core.plugins.registry import Normalizer

Shapes = Sequence[Sequence[Any]]


def per_element(count: int) -> Any:
    """Return a rule of so many FLOPs for each element."""

    def rule(module: nn.Module, inputs: Shapes, outputs: Shapes, parameters: Mapping[str, Sequence[Any]]) -> Any:
        del module, inputs, parameters
        cost = count
        for size in outputs[0]:
            cost = cost * size
        return cost

    return rule


def clip_examples() -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return examples of both branches."""
    return [(OutlierClip(4), (torch.linspace(-1, 1, 8).view(2, 4),)), (OutlierClip(4, 0.5), (torch.ones(2, 3, 4),))]


CLIP = declare(
    "acme.outlier_clip",
    OutlierClip,
    flops=per_element(2),
    expand=AlwaysClip,
    examples=clip_examples,
)


def snake_examples() -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return an example."""
    return [(Snake(2.0), (torch.linspace(-1, 1, 8).view(2, 4),))]


@op("acme.snake", flops=per_element(5), examples=snake_examples)
class Snake(Op):
    """The activation `acme_torch_dag.snake` as an op."""

    frequency: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + sin(f x)^2 / f``."""
        return snake(x, self.frequency)


def snake_call(call: Call, x: Value, frequency: float = 1.0) -> Any:
    """Turn a call of `acme_torch_dag.snake` into a vertex."""
    return call.emit(Snake(float(frequency)), x)


SNAKE_CALLS = Normalizer(
    functions=("snake",), normalize=snake_call, examples=lambda: [(AcmeNet(), (torch.ones(2, 6),))]
)
