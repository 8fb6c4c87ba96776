"""The hooks of this distribution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch_dag_block_pruning.algorithm import BlockPruning
    from torch_dag_block_pruning.config import BlockPruningConfig
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec
    from torch_dag_core.cli.coverage.check import CoverageCheck
    from torch_dag_core.graph.dag import DagModule

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_algorithms() -> Iterable[AlgorithmSpec]:
    """Offer block pruning as an algorithm."""
    from torch_dag_block_pruning.config import BlockPruningConfig
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec

    yield AlgorithmSpec(
        name="block-pruning",
        summary="Remove whole residual branches. Stub: only the analysis works.",
        config=BlockPruningConfig,
        create=_create,
        status="stub",
    )


def _create(dag: DagModule, config: BlockPruningConfig) -> BlockPruning:
    from torch_dag_block_pruning.algorithm import BlockPruning

    return BlockPruning.from_config(dag, config)


@hookimpl
def torch_dag_coverage_checks() -> Iterable[CoverageCheck]:
    """Add the share of FLOPs that can be removed in whole blocks."""
    from torch_dag_block_pruning.coverage import CHECK

    yield CHECK
