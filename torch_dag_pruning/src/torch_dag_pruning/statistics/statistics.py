"""Statistics of a graph over calibration data, of which every criterion and every plan takes what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from torch_dag_core.algorithms.settings import require_count
from torch_dag_core.graph.interpret import walk
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.analysis.expansion import shared_clone
from torch_dag_pruning.errors import CalibrationError
from torch_dag_pruning.processes import summed, sums
from torch_dag_pruning.statistics.batches import Batch, read_batches
from torch_dag_pruning.statistics.consumers import Consumer, by_call, consumers
from torch_dag_pruning.statistics.contractions import Places
from torch_dag_pruning.statistics.mask_gradients import Loss, MaskGradients, SampleMasks, random_signs
from torch_dag_pruning.statistics.moments import Moments
from torch_dag_pruning.statistics.statistics_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

Progress = Callable[[int], None]
"""Called after each batch with the number of samples that it had."""


@dataclass(frozen=True, kw_only=True)
class StatisticsSettings:
    """How statistics are collected.

    Attributes:
        positions: At most so many positions of each sample are looked at: pixels, or tokens.
        seed: Of the choice of positions, and of the random signs of the loss ``"outputs"``.
        most_bytes: Bound on the size of the result; none by default. `Statistics.bytes_needed` gives the size.
    """

    positions: int = 32
    seed: int = 0
    most_bytes: int | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: names the setting and what it may be.
        """
        require_count("positions", self.positions)
        require_count("seed", self.seed, least=0)


@dataclass(frozen=True)
class Statistics:
    """Moments of what learned contractions read, and gradients of masks, summed over samples.

        def loss(logits, batch):
            return cross_entropy(logits, batch[1], reduction="none")

        statistics = Statistics.collect(analysis, batches, loss=loss)
        both = statistics + Statistics.collect(analysis, more_batches)
        both.save("statistics.safetensors")

    Statistics of parts of the data add up to those of the whole, apart from the random choice of positions.

    Attributes:
        samples: How many samples were seen.
        moments: By the name of the consumer: of the rows that it multiplies by its weights.
        gradients: Of masks; None if they were not asked for.
    """

    samples: int
    moments: Mapping[str, Moments]
    gradients: MaskGradients | None = None

    @classmethod
    def collect(
        cls, analysis: Analysis, batches: Iterable[Any], *, loss: Loss | Literal["outputs"] | None = None,
        progress: Progress | None = None, **settings: Any,
    ) -> Statistics:  # fmt: skip
        """Run the graph over batches, in evaluation mode, and return what there is to know of them.

        Args:
            analysis: Of the graph, whose present weights are used.
            batches: Tensors, tuples that start with the inputs, or mappings by name of the input.
            loss: Function of what the graph returns and the batch that gives one value for each sample; its gradients
                by the masks are collected. ``"outputs"`` needs no labels: it measures how far the outputs move. None
                collects no gradients.
            progress: Called after each batch with its number of samples.
            **settings: The fields of `StatisticsSettings`, by name.

        Raises:
            SettingsError: a setting is wrong.
            CalibrationError: there is no batch, one lacks an input, the loss gives something else than one value for
                each sample, or the result would be larger than ``most_bytes``.
            AnalysisError: the graph was edited after it was analysed.
        """
        chosen = StatisticsSettings(**settings)
        analysis.require_current()
        needed = cls.bytes_needed(analysis)
        if chosen.most_bytes is not None and needed > chosen.most_bytes:
            message = f"the statistics of this graph take {needed:,} bytes, more than most_bytes={chosen.most_bytes:,}"
            raise CalibrationError(message)
        collecting = _Collecting(analysis, chosen.positions, torch.Generator().manual_seed(chosen.seed), loss)
        for batch in read_batches(collecting.dag, batches):
            collecting.add(batch)
            if progress is not None:
                progress(batch.samples)
        return cls(collecting.samples, collecting.moments, collecting.gradients)

    @staticmethod
    def bytes_needed(analysis: Analysis) -> int:
        """Return the size of the moments of a graph, in bytes: 8 for each element of each Gram matrix and mean."""
        return sum(consumer.bytes_needed for consumer in consumers(analysis).values())

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of two disjoint sets of samples together.

        Raises:
            CalibrationError: the two are of different graphs, or only one of them has gradients.
        """
        if _outline(self) != _outline(other):
            message = "statistics of different graphs, or with and without gradients, cannot be added"
            raise CalibrationError(message)
        moments = {name: each + other.moments[name] for name, each in self.moments.items()}
        gradients = None
        if self.gradients is not None and other.gradients is not None:
            gradients = self.gradients + other.gradients
        return Statistics(self.samples + other.samples, moments, gradients)

    def over_processes(self) -> Statistics:
        """Return the sum over the processes of ``torch.distributed``; unchanged if there is one.

        All processes must call it, with statistics of the same graph.
        """
        samples = int(summed(torch.tensor(self.samples)))
        moments = {name: each.over_processes() for name, each in self.moments.items()}
        gradients = None
        if self.gradients is not None:
            gradients = MaskGradients(*(sums(getattr(self.gradients, kind)) for kind in _KINDS))
        return Statistics(samples, moments, gradients)

    def require(self, analysis: Analysis) -> None:
        """Refuse an analysis of another graph than the one that these statistics are of.

        Raises:
            CalibrationError: a consumer is missing, or has another size.
        """
        for name, consumer in consumers(analysis).items():
            size = (consumer.matrix.shape[0], consumer.columns)
            if name not in self.moments or tuple(self.moments[name].total.shape) != size:
                message = f"the statistics are of another graph: they say nothing of {name!r} with {size[1]} columns"
                raise CalibrationError(message)

    def mask_gradients(self) -> MaskGradients:
        """Return the gradients of masks.

        Raises:
            CalibrationError: they were not collected.
        """
        if self.gradients is None:
            message = "these statistics hold no gradients; pass loss=... or loss='outputs' to Statistics.collect"
            raise CalibrationError(message)
        return self.gradients

    # Files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the statistics to a safetensors file, replacing it atomically."""
        tensors = {f"total {name}": each.total for name, each in self.moments.items()}
        tensors |= {f"gram {name}": each.gram for name, each in self.moments.items()}
        for kind in _KINDS if self.gradients is not None else ():
            tensors |= {f"{kind} gradient {key}": value for key, value in getattr(self.gradients, kind).items()}
        counts = {name: each.count for name, each in self.moments.items()}
        has_gradients = self.gradients is not None
        document = {"samples": self.samples, "counts": counts, "gradients": has_gradients}
        write_tensors(Path(path), tensors, document)

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read what `save` wrote.

        Raises:
            CalibrationError: the file holds no statistics.
        """
        tensors, document = read_tensors(Path(path))
        moments = {
            name: Moments(count, tensors[f"total {name}"], tensors[f"gram {name}"])
            for name, count in document["counts"].items()
        }
        gradients = MaskGradients(*(_with_prefix(tensors, f"{kind} gradient ") for kind in _KINDS))
        return cls(document["samples"], moments, gradients if document["gradients"] else None)


_KINDS = ("total", "absolute", "square")


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _outline(statistics: Statistics) -> Any:
    shapes = {name: tuple(each.total.shape) for name, each in statistics.moments.items()}
    slots = {} if statistics.gradients is None else {k: v.numel() for k, v in statistics.gradients.total.items()}
    return shapes, statistics.gradients is None, slots


@dataclass
class _Collecting:
    """One run over data."""

    analysis: Analysis
    positions: int
    generator: torch.Generator
    loss: Loss | Literal["outputs"] | None
    samples: int = 0
    moments: dict[str, Moments] = field(default_factory=dict)
    gradients: MaskGradients | None = None

    def __post_init__(self) -> None:
        self.dag = shared_clone(self.analysis.dag).eval()
        self.loss_function = random_signs(self.generator) if self.loss == "outputs" else self.loss

    @cached_property
    def consumers(self) -> dict[str, Consumer]:
        return by_call(consumers(self.analysis))

    def add(self, batch: Batch) -> None:
        masks = None if self.loss_function is None else SampleMasks(self.analysis, batch.samples)
        with nullcontext() if masks is not None else torch.no_grad():
            outputs = self._run(batch, masks)
            if masks is not None and self.loss_function is not None:
                gradients = masks.gradients(self.loss_function(outputs, batch.whole))
                self.gradients = gradients if self.gradients is None else self.gradients + gradients
        self.samples += batch.samples

    def _run(self, batch: Batch, masks: SampleMasks | None) -> Any:
        def call(vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
            given = operands if masks is None else masks.lay(vertex, operands)
            result = vertex.module(*given)
            if vertex.name in self.consumers:
                self._observe(self.consumers[vertex.name], operands[0].detach(), result.detach(), batch.samples)
            return result

        *_, (_, outputs) = walk(self.dag, batch.inputs, call, training=False)
        return outputs

    def _observe(self, consumer: Consumer, operand: Tensor, result: Tensor, samples: int) -> None:
        most = max(1, self.positions * samples // max(result.shape[0], 1))
        places = Places.drawn(result, consumer.contraction.channel, most, self.generator)
        found = Moments.of(consumer.rows(operand, result, places))
        known = self.moments.get(consumer.name)
        self.moments[consumer.name] = found if known is None else known + found
