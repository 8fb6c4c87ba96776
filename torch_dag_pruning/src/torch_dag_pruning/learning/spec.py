"""Learned channel pruning as an algorithm that plugins offer; torch is imported only when it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_dag_core.algorithms.algorithm import AlgorithmSpec
from torch_dag_pruning.learning.config import LearnedChannelConfig

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_pruning.learning.learned import LearnedChannelPruning


def _create(dag: DagModule, config: LearnedChannelConfig) -> LearnedChannelPruning:
    from torch_dag_pruning.learning.learned import LearnedChannelPruning

    return LearnedChannelPruning.from_config(dag, config)


SPEC = AlgorithmSpec(
    name="learned-channel-pruning",
    summary="Learn during training which channels to remove.",
    config=LearnedChannelConfig,
    create=_create,
    trains=True,
)
