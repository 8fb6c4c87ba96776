"""Low-rank compression with learned ranks. STUB: settings and analysis are real, other steps raise `StubError`."""

from torch_dag_llrc.algorithm import LowRankCompression
from torch_dag_llrc.analysis import analyze_ranks
from torch_dag_llrc.config import LowRankConfig
from torch_dag_llrc.report import LayerCandidate, LowRankReport
from torch_dag_llrc.schemes import CostTable, LayerSizes

__all__ = [
    "CostTable", "LayerCandidate", "LayerSizes", "LowRankCompression", "LowRankConfig", "LowRankReport",
    "analyze_ranks",
]  # fmt: skip
