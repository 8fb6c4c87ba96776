"""Low-rank compression: the analysis works, learning is a stub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.errors import StubError
from torch_dag_core.graph.dag import DagModule
from torch_dag_llrc.analysis import analyze_ranks
from torch_dag_llrc.config import LowRankConfig
from torch_dag_llrc.report import LowRankReport


class LowRankCompression(CompressionAlgorithm):
    """Replaces layers by chains of smaller ones whose ranks are learned.

    STUB: only the constructor, which takes the settings of `LowRankConfig`, and `analyze` work yet.

    Raises:
        SettingsError: a setting is wrong, or the target cannot be reached (the message says which can).
        StubError: a setting asks for something that does not exist yet.
    """

    name: ClassVar[str] = "low-rank"
    config_type = LowRankConfig
    config: LowRankConfig

    def analyze(self) -> LowRankReport:
        """Return every layer that can be factored, with its cost at every rank; changes nothing."""
        return analyze_ranks(self.model, self.input_shape, self.config)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Raise `StubError`: statistics of layer inputs are not collected yet."""
        del batches
        raise StubError(self.name, "calibrate", "means and covariances of what each layer reads")

    def prepare(self) -> DagModule:
        """Raise `StubError`: layers are not factored yet."""
        needed = f"the whitened factors of every layer and the {self.config.gate!r} gates between them"
        raise StubError(self.name, "prepare", needed)

    def losses(self, global_step: int) -> Losses:
        """Raise `StubError`: there are no gates yet from which a rank could be computed."""
        del global_step
        needed = "the soft ranks of the gates and the noise-to-signal ratios of factored layers"
        raise StubError(self.name, "losses", needed)

    def finalize(self) -> DagModule:
        """Raise `StubError`: ranks are not learned yet."""
        needed = (
            f"ranks rounded to multiples of {self.config.rank_multiple} under the budget, and the factors cut to them"
        )
        raise StubError(self.name, "finalize", needed)

    def remove_ranks(self) -> DagModule:
        """Return a plain graph with its layers reduced to the learned ranks; the same as `finalize`."""
        return self.finalize()
