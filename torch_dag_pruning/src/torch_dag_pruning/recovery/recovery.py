"""What a repair gives: the graph, and what was done to each of its layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.analysis.expansion import shared_clone
from torch_dag_pruning.analysis.value_axes import ValueAxes
from torch_dag_pruning.errors import RecoveryError
from torch_dag_pruning.recovery.agenda import Agenda
from torch_dag_pruning.recovery.held_out import HeldOut
from torch_dag_pruning.recovery.memory import largest_system, live_bytes
from torch_dag_pruning.recovery.repair import LayerRecovery, Repair
from torch_dag_pruning.recovery.settings import RecoverySettings
from torch_dag_pruning.recovery.walking import Parts
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.record import first_names, note_recovery
from torch_dag_pruning.removal.stepping import Stepper
from torch_dag_pruning.statistics.batches import Batch, read_batches


@dataclass(frozen=True)
class Recovery:
    """A pruned graph with repaired weights.

    Attributes:
        dag: The graph; what was passed in is as it was.
        layers: What was done to each layer, in the order in which they run.
        skipped: Why a layer behind removed slots was left as it is, by the name of its vertex.
        samples: How many samples there were.
        error_before: Norm of the difference between the outputs of the pruned graph and of its reference, relative to
            the norm of those of the reference, on held-out samples (all samples where none are held out).
        error_after: The same of the repaired graph.
    """

    dag: DagModule
    layers: tuple[LayerRecovery, ...]
    skipped: Mapping[str, str]
    samples: int
    error_before: float
    error_after: float

    def __str__(self) -> str:
        solved = sum(layer.kind == "least_squares" for layer in self.layers)
        head = (
            f"error of the outputs on held-out samples: {self.error_before:.2%} before, {self.error_after:.2%} after "
            f"({solved} of {len(self.layers)} layers solved, {self.samples} samples)"
        )
        return "\n".join([head, *(f"left as it is: {name}: {reason}" for name, reason in self.skipped.items())])


def recovered(
    removed: DagModule, axes: ValueAxes, kept: Kept, batches: Iterable[Any], settings: RecoverySettings
) -> Recovery:
    """Return a repaired copy of a removed graph; see `Cut.recover`.

    Raises:
        RecoveryError: the graph is not what the plan leaves, or the data does not fit into the memory that is allowed.
        CalibrationError: there is no batch, or one lacks an input.
    """
    data = list(read_batches(removed, batches))
    reference = shared_clone(axes.analysis.dag).eval()
    _require_fitting((reference, removed), axes, data, settings)
    copy = removed.clone()
    modes = {name: module.training for name, module in copy.named_modules()}
    copy.eval()
    agenda = Agenda(copy, axes, kept, settings)
    repair = Repair(copy, reference, agenda, settings, data)
    before = _returned(copy, repair.held_out.kept_samples(data))
    repair.run()
    for name, module in copy.named_modules():
        module.training = modes[name]
    errors = _Errors(repair.held_out, agenda, repair.wanted)
    recovery = Recovery(
        copy, tuple(repair.layers.values()), agenda.skipped, sum(batch.samples for batch in data),
        errors.of(before), errors.of({name: errors.chosen(parts) for name, parts in repair.outputs.items()}),
    )  # fmt: skip
    note_recovery(copy, _record(recovery, settings))
    return recovery


def _require_fitting(
    graphs: Sequence[DagModule], axes: ValueAxes, data: Sequence[Batch], settings: RecoverySettings
) -> None:
    """Refuse data whose values do not fit into the memory that is allowed."""
    if settings.most_bytes is None:
        return
    needed = sum(_live_bytes(dag, axes, batch) for dag in graphs for batch in data)
    needed += largest_system(graphs[1], axes.analysis.registry)
    if needed > settings.most_bytes:
        samples = sum(batch.samples for batch in data)
        message = (
            f"the values of {samples} samples, and what is solved, take up to {needed:,} bytes, more than most_bytes="
            f"{settings.most_bytes:,}; pass fewer samples, or a larger bound"
        )
        raise RecoveryError(message)


def _live_bytes(dag: DagModule, axes: ValueAxes, batch: Batch) -> int:
    blank = [torch.empty_like(tensor, device="meta") for tensor in batch.inputs]
    return live_bytes(dag, ShapeRun(axes.analysis.registry).values(dag, blank))


# Errors --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _returned(dag: DagModule, batches: Sequence[Batch]) -> dict[str, list[Any]]:
    """Return the outputs of a graph by the names of the vertices that give them."""
    found: dict[str, list[Any]] = {}
    for batch in batches:
        stepper = Stepper(dag, batch.inputs)
        for _ in stepper.steps():
            pass
        for name, value in zip(stepper.returned, stepper.outputs, strict=True):
            found.setdefault(name, []).append(value)
    return found


@dataclass(frozen=True)
class _Errors:
    """Compares outputs with those of the reference on held-out samples."""

    held_out: HeldOut
    agenda: Agenda
    wanted: Mapping[str, Parts]

    def chosen(self, parts: Parts) -> list[Any]:
        """Return the held-out samples of an output; of anything but tensors over samples, nothing."""
        samples = [flags.numel() for flags in self.held_out.samples]
        is_usual = all(
            isinstance(part, Tensor) and part.shape[:1] == (count,) and part.is_floating_point()
            for part, count in zip(parts, samples, strict=True)
        )
        return self.held_out.of_values(parts) if is_usual else []

    def of(self, outputs: Mapping[str, list[Any]]) -> float:
        """Return the norm of all differences relative to the norm of all wanted outputs."""
        difference = norm = 0.0
        for name, parts in self.wanted.items():
            wanted = self.chosen([self.agenda.taken(name, p) if isinstance(p, Tensor) else p for p in parts])
            for old, new in zip(wanted, outputs[name] if wanted else [], strict=True):
                difference += float((new - old).to(torch.float64).square().sum())
                norm += float(old.to(torch.float64).square().sum())
        return math.sqrt(difference / norm) if norm else 0.0


def _record(recovery: Recovery, settings: RecoverySettings) -> dict[str, Any]:
    """Return what was done as constants that a file can hold; of very many layers, the first are listed."""
    return {
        "method": settings.method,
        "target": settings.target,
        "batch_norm": settings.batch_norm,
        "samples": recovery.samples,
        "positions": settings.positions,
        "error_before": recovery.error_before,
        "error_after": recovery.error_after,
        "repaired": len(recovery.layers),
        "layers": first_names({
            layer.vertex: {
                "kind": layer.kind, "alpha": layer.alpha, "rows": layer.rows,
                "before": _finite(layer.before), "mean": _finite(layer.mean), "after": _finite(layer.after),
            }
            for layer in recovery.layers
        }),
        "skipped": first_names(recovery.skipped),
    }  # fmt: skip


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
