"""The hooks of this distribution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_llrc.algorithm import LowRankCompression
    from torch_dag_llrc.config import LowRankConfig

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_algorithms() -> Iterable[AlgorithmSpec]:
    """Offer low-rank compression as an algorithm."""
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec
    from torch_dag_llrc.config import LowRankConfig

    yield AlgorithmSpec(
        name="low-rank",
        summary="Replace layers by chains of thinner ones. Stub: only the analysis works.",
        config=LowRankConfig,
        create=_create,
        status="stub",
    )


def _create(dag: DagModule, config: LowRankConfig) -> LowRankCompression:
    from torch_dag_llrc.algorithm import LowRankCompression

    return LowRankCompression.from_config(dag, config)
