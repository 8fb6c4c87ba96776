"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_llrc.algorithm import LowRankCompression
from torch_dag_llrc.analysis import analyze_ranks
from torch_dag_llrc.config import LowRankConfig
from torch_dag_llrc.report import LayerCandidate, LowRankReport
from torch_dag_llrc.schemes import CostTable, LayerSizes

__all__ = [
    "CostTable", "LayerCandidate", "LayerSizes", "LowRankCompression", "LowRankConfig", "LowRankReport",
    "analyze_ranks",
]  # fmt: skip
