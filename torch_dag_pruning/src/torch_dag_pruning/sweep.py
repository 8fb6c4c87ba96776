"""A graph pruned at once in many ways, and how far the outputs are from those before: to choose settings by."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from torch_dag_core.errors import TorchDagError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.errors import CalibrationError
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.one_shot_config import OneShotConfig
from torch_dag_pruning.plan.known_criteria import criterion_named
from torch_dag_pruning.statistics.batches import read_batches

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One way to prune.

    Attributes:
        target: The share of the FLOPs to keep.
        criterion: How slots are scored.
        recover: How weights are repaired.
    """

    target: float
    criterion: str
    recover: str

    @property
    def key(self) -> str:
        """The case in one word."""
        return f"{self.target:g}-{self.criterion}-{self.recover}"


@dataclass(frozen=True)
class Row:
    """What became of one case.

    Attributes:
        target: The share of the FLOPs to keep.
        criterion: How slots were scored.
        recover: How weights were repaired.
        flops: The share of the FLOPs that is left; None after a failure, as all that follows.
        parameters: The share of the parameters that is left.
        error: Norm of the change of the outputs relative to their norm, on samples that nothing was chosen by.
        seconds: How long pruning and repairing took.
        failure: Why the graph could not be pruned so; "" if it could.
    """

    target: float
    criterion: str
    recover: str
    flops: float | None = None
    parameters: float | None = None
    error: float | None = None
    seconds: float | None = None
    failure: str = ""

    @property
    def case(self) -> Case:
        """The case."""
        return Case(self.target, self.criterion, self.recover)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Return the row that `asdict` made a mapping of; fields that newer releases added are left out."""
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})


def cases(targets: Sequence[float], criteria: Sequence[str], recoveries: Sequence[str]) -> list[Case]:
    """Return all combinations, in the order of the targets."""
    return [Case(*values) for values in itertools.product(targets, criteria, recoveries)]


def sweep(dag: DagModule, batches: Iterable[Any], chosen: Iterable[Case], **settings: Any) -> Iterator[Row]:
    """Prune copies of a graph, one for each case, and give a row for each.

        for row in sweep(dag, batches, cases([0.75, 0.5], ["l2", "variance"], ["none", "least_squares"])):
            print(row.criterion, row.flops, row.error)

    A case that cannot be carried out, such as a share of FLOPs that cannot be reached, gives a row that says why.

    Args:
        dag: The graph; it is not changed.
        batches: Data without labels, as for `OneShotChannelPruning.calibrate`. A quarter of each batch is held out, and
            the outputs are compared on that.
        chosen: The cases.
        **settings: Further fields of `OneShotConfig`, the same for all cases.

    Raises:
        SettingsError: a setting of a case is wrong; no case is carried out then.
        PlanError: a criterion is unknown; no case is carried out then.
        CalibrationError: there is no batch, or one has fewer than two samples.
    """
    listed = list(chosen)
    for case in listed:
        OneShotConfig(keep_flops=case.target, criterion=case.criterion, recover=case.recover, **settings)
        criterion_named(case.criterion)
    seen, held_out = _in_two(dag, batches)
    reference = _outputs(dag, held_out)
    for case in listed:
        try:
            yield _row(dag, case, seen, (held_out, reference), settings)
        except TorchDagError as error:
            yield Row(case.target, case.criterion, case.recover, failure=str(error))


def _row(
    dag: DagModule, case: Case, seen: Sequence[Inputs], compared: tuple[Sequence[Inputs], list[Tensor]],
    settings: Mapping[str, Any],
) -> Row:  # fmt: skip
    start = time.perf_counter()
    pruning = OneShotChannelPruning(
        dag, None, keep_flops=case.target, criterion=case.criterion, recover=case.recover, **settings
    )
    pruning.calibrate(seen)
    pruning.prepare()
    share = float(pruning.losses(0).cost_share)
    pruned = pruning.finalize()
    seconds = time.perf_counter() - start
    error = _distance(_outputs(pruned, compared[0]), compared[1])
    before, after = (sum(tensor.numel() for tensor in graph.parameters()) for graph in (dag, pruned))
    return Row(**asdict(case), flops=share, parameters=after / before, error=error, seconds=seconds)


def _in_two(dag: DagModule, batches: Iterable[Any]) -> tuple[list[Inputs], list[Inputs]]:
    """Return three quarters of each batch, and the rest."""
    seen, held_out = list[Inputs](), list[Inputs]()
    for number, batch in enumerate(read_batches(dag, batches)):
        rest = max(1, batch.samples // 4)
        if batch.samples < 2:
            message = f"batch {number} has one sample; a sweep needs batches of two at least, to hold one out"
            raise CalibrationError(message)
        seen.append(tuple(tensor[:-rest] for tensor in batch.inputs))
        held_out.append(tuple(tensor[-rest:] for tensor in batch.inputs))
    return seen, held_out


@torch.no_grad()
def _outputs(dag: DagModule, batches: Sequence[Inputs]) -> list[Tensor]:
    graph = dag.clone().eval()
    leaves = [leaf for inputs in batches for leaf in tree_leaves(graph(*inputs))]
    return [leaf.double() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    change = sum(float((one - other).square().sum()) for one, other in zip(found, wanted, strict=True))
    return float((change / max(sum(float(each.square().sum()) for each in wanted), 1e-300)) ** 0.5)
