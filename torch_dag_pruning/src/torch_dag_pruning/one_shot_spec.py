"""One-shot channel pruning as an algorithm that plugins offer; torch is imported only when it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_dag_core.algorithms.algorithm import AlgorithmSpec
from torch_dag_pruning.one_shot_config import OneShotConfig

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_pruning.one_shot import OneShotChannelPruning


def _create(dag: DagModule, config: OneShotConfig) -> OneShotChannelPruning:
    from torch_dag_pruning.one_shot import OneShotChannelPruning

    return OneShotChannelPruning.from_config(dag, config)


SPEC = AlgorithmSpec(
    name="channel-pruning",
    summary="Remove the least important channels at once, without training.",
    config=OneShotConfig,
    create=_create,
    trains=False,
)
