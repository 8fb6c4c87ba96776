"""How much the outputs change when one orbit, or one block, keeps fewer slots: a table to choose limits by."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from torch_dag_core.algorithms.settings import choose
from torch_dag_core.atomic_files import write_text
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import walk
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.resizing import best_slots
from torch_dag_pruning.plan.scores import checked_scores
from torch_dag_pruning.statistics.batches import Batch, read_batches

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit
    from torch_dag_pruning.plan.criteria import ImportanceCriterion

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """What it does to the outputs to prune one orbit, or one block, alone.

    Attributes:
        name: Key of the orbit, or name of the block.
        slots: The number of slots.
        kept: How many of them stay.
        flops: Share of the FLOPs of the graph that is left.
        error: Norm of the change of the outputs relative to the norm of the outputs, without any repair.
    """

    name: str
    slots: int
    kept: int
    flops: float
    error: float


@dataclass(frozen=True)
class Sensitivity:
    """A table with a row for each orbit or block, and each share of slots that it keeps.

    Attributes:
        rows: By name in the order of the graph, then by number of kept slots.
        samples: The number of samples that the outputs were compared on.
    """

    rows: tuple[Row, ...]
    samples: int

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=4)
        head = f"{'':{width}}   kept of slots  FLOPs left  error of the outputs ({self.samples} samples)"
        lines = (f"{r.name:{width}}  {r.kept:5d} of {r.slots:5d}  {r.flops:10.2%}  {r.error:.2%}" for r in self.rows)
        return "\n".join([head, *lines])

    def to_json(self) -> str:
        """Return the table as a JSON document with ``samples`` and ``rows``."""
        return json.dumps({"samples": self.samples, "rows": [asdict(row) for row in self.rows]}, indent=1) + "\n"

    def to_csv(self) -> str:
        """Return the rows as CSV with a header."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([each.name for each in fields(Row)])
        writer.writerows([list(asdict(row).values()) for row in self.rows])
        return text.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the table to a file, as JSON or CSV by its suffix.

        Raises:
            PlanError: the suffix is neither ``.json`` nor ``.csv``.
            OSError: the file cannot be written.
        """
        write_text(path, format_of(path)(self))


FORMATS: Final[Mapping[str, Callable[[Sensitivity], str]]] = {
    ".csv": Sensitivity.to_csv, ".json": Sensitivity.to_json,
}  # fmt: skip


def format_of(path: str | Path) -> Callable[[Sensitivity], str]:
    """Return the function that writes a table as the suffix of a path says.

    Raises:
        PlanError: there is no format for the suffix.
    """
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        message = f"a table is written as {' or '.join(FORMATS)}, not {suffix or 'without a suffix'!r}: {str(path)!r}"
        raise PlanError(message)
    return FORMATS[suffix]


def sensitivity(
    analysis: Analysis, batches: Iterable[Any], *, shares: Sequence[float] = (0.75, 0.5, 0.25), by: str = "orbit",
    criterion: str | ImportanceCriterion = "l2", progress: Progress | None = None,
) -> Sensitivity:  # fmt: skip
    """Prune every orbit, or every block, alone to some shares of its slots, and compare the outputs.

    The graph runs on the data once for each row, with masks; nothing is removed or changed.

    Args:
        analysis: Of the graph.
        batches: Tensors, tuples that start with the inputs, or mappings by name of the input; no labels are needed.
        shares: Shares of the slots that stay, each above 0 and at most 1.
        by: ``"orbit"``, or ``"block"`` for all orbits of which the first layer lies in the same numbered module, such
            as ``layer1.0``.
        criterion: Chooses the slots that stay: a name or an object.
        progress: Called after each row with the number of rows that are done, and that of all.

    Raises:
        PlanError: a share is out of range, or the criterion looks at data and has no statistics.
        SettingsError: ``by`` is something else.
        CalibrationError: there is no batch, or one lacks an input.
    """
    choose("by", by, tuple(_GROUPS))
    for share in shares:
        if not 0.0 < share <= 1.0:
            message = f"shares are fractions of the slots that stay, above 0 and at most 1; got {share!r}"
            raise PlanError(message)
    data = list(read_batches(analysis.dag, batches))
    scores = checked_scores(analysis, Plan.scoring(criterion))
    scan = _Scan(analysis, Masking(analysis), data, scores)
    cases = [(name, orbits, share) for name, orbits in _groups(analysis, by).items() for share in shares]
    rows: list[Row] = []
    for name, orbits, share in cases:
        rows.append(scan.row(name, orbits, share))
        if progress is not None:
            progress(len(rows), len(cases))
    return Sensitivity(tuple(rows), sum(batch.samples for batch in data))


def _block(orbit: Orbit) -> str:
    """Return the innermost numbered module that the first layer of an orbit lies in, or that layer."""
    parts = orbit.name.split(".")
    numbered = [count for count, part in enumerate(parts, start=1) if part.isdigit()]
    return ".".join(parts[: numbered[-1]]) if numbered else orbit.name


_GROUPS: Final[Mapping[str, Callable[[Any], str]]] = {"orbit": lambda orbit: str(orbit.key), "block": _block}


def _groups(analysis: Analysis, by: str) -> dict[str, list[Orbit]]:
    groups: dict[str, list[Orbit]] = {}
    for orbit in analysis.orbits:
        groups.setdefault(_GROUPS[by](orbit), []).append(orbit)
    return groups


class _Scan:
    """Runs a graph with masks on data, and compares the outputs with those without."""

    def __init__(
        self, analysis: Analysis, masking: Masking, data: Sequence[Batch], scores: Mapping[str, Tensor]
    ) -> None:
        self._analysis, self._masking, self._data, self._scores = analysis, masking, data, scores
        self._wanted = [_outputs(analysis.dag, batch) for batch in data]
        self._whole = float(analysis.cost())

    def row(self, name: str, orbits: Sequence[Orbit], share: float) -> Row:
        """Return the row of some orbits that keep a share of their slots, while all others keep theirs."""
        kept = {o.key: best_slots(self._scores[o.key], max(1, o.minimum, round(share * o.n))) for o in orbits}
        plan = Plan.keeping(self._analysis, kept)
        before = self._masking.masks
        self._masking.update({key: plan.mask(key) for key in kept})
        error = self._error()
        self._masking.update({key: before[key] for key in kept})
        left = float(self._analysis.cost(plan.atom_counts(self._analysis))) / self._whole
        return Row(name, sum(orbit.n for orbit in orbits), sum(map(len, kept.values())), left, error)

    def _error(self) -> float:
        difference = norm = 0.0
        for batch, wanted in zip(self._data, self._wanted, strict=True):
            for old, new in zip(wanted, _outputs(self._masking.dag, batch), strict=True):
                difference += float((new - old).square().sum())
                norm += float(old.square().sum())
        return (difference / norm) ** 0.5 if norm else 0.0


@torch.no_grad()
def _outputs(dag: DagModule, batch: Batch) -> list[Tensor]:
    """Return the tensors of floats that a graph returns in evaluation, in double precision."""
    modes = {module: module.training for module in dag.modules()}
    dag.eval()
    try:
        return list(_doubles(_returned(dag, batch)))
    finally:
        for module, training in modes.items():
            module.training = training


def _returned(dag: DagModule, batch: Batch) -> Any:
    steps = walk(dag, batch.inputs, lambda vertex, operands: vertex.module(*operands), training=False)
    ((_, result),) = deque(steps, maxlen=1)  # the last step is that of the whole result
    return result


def _doubles(value: Any) -> Iterator[Tensor]:
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            yield leaf.to(torch.float64)
