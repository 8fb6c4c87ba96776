"""A tiny algorithm: weights on a grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, Losses
from torch_dag_core.algorithms.reports import Candidate, CompressionReport
from torch_dag_core.graph.dag import DagModule

NAME = "acme-rounding"


@dataclass(frozen=True)
class RoundingConfig:
    """Settings of `Rounding`."""

    steps: int = field(default=16, metadata={"help": "how many weights lie between two integers"})

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            message = f"steps must be an int of at least 1, got {self.steps!r}"
            raise ValueError(message)


class Rounding:
    """Rounds the weights of linear layers."""

    def __init__(self, dag: DagModule, config: RoundingConfig) -> None:
        self.dag, self.config = dag, config

    def analyze(self) -> CompressionReport:
        """List the linear layers; rounding saves no FLOPs."""
        layers = [vertex for vertex in self.dag.inner_vertices if isinstance(vertex.module, nn.Linear)]
        candidates = [
            Candidate(name=v.name, kind="linear", flops=2 * v.module.weight.numel(), removable=0) for v in layers
        ]
        flops = sum(candidate.flops for candidate in candidates)
        return CompressionReport(algorithm=NAME, flops=flops, reachable_flops=flops, candidates=candidates)

    def prepare(self) -> DagModule:
        """Return a copy; there is nothing to learn."""
        return self.dag.clone()

    def losses(self, global_step: int) -> Losses:
        """Return nothing to add."""
        del global_step
        zero = torch.zeros(())
        return Losses(torch.ones(()), zero, zero, zero)

    def finalize(self) -> DagModule:
        """Return a copy with rounded weights."""
        result = self.dag.clone()
        with torch.no_grad():
            for vertex in result.inner_vertices:
                if isinstance(vertex.module, nn.Linear):
                    vertex.module.weight.copy_((vertex.module.weight * self.config.steps).round() / self.config.steps)
        return result


SPEC = AlgorithmSpec(
    name=NAME, summary="Rounds the weights of linear layers.", config=RoundingConfig, create=Rounding, trains=False
)
