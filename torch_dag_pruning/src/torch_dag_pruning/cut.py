"""Carrying out one plan on one analysed graph: masked, removed, and the proof that both compute the same (M2, R3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_pruning.analysis.analysis import Analysis, analyze
from torch_dag_pruning.analysis.value_axes import ValueAxes
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.errors import PruningWarning, RemovalMismatchError
from torch_dag_pruning.masking.laying import lay_masks, mask_lookup
from torch_dag_pruning.plan.criteria import learned_tensors
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.recovery.recovery import Recovery, recovered
from torch_dag_pruning.recovery.settings import RecoverySettings
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.optimizer import Carrying
from torch_dag_pruning.removal.proof import Graphs, Proof, compared, in_precision
from torch_dag_pruning.removal.record import note_proof, note_removal
from torch_dag_pruning.removal.shrinking import Shrinking


class Cut:
    """One plan for one analysed graph.

        cut = Cut(analyze(dag), plan)
        masked = cut.masked()          # the dropped slots contribute nothing
        pruned = cut.removed()         # the dropped slots are gone
        print(cut.prove(pruned))       # the largest difference; raises if it is too large

    The returned graphs are copies. They have the weights that the analysed graph has when the method is called.

    Attributes:
        analysis: The analysis of the graph.
        plan: The kept slots of each orbit.
        kept: Sizes and positions of the kept slots of any axis.
        axes: The axes of all values of the graph.
    """

    def __init__(self, analysis: Analysis, plan: Plan) -> None:
        """Check that the plan fits the analysis.

        Raises:
            PlanError: the plan does not fit the analysis.
            AnalysisError: the graph was edited after it was analysed.
        """
        plan.validate(analysis)
        analysis.require_current()
        self.analysis, self.plan = analysis, plan
        self._masks = plan.atom_masks(analysis)
        self.kept = Kept(analysis.solver.find, self._masks)
        self.axes = ValueAxes(analysis)

    def masked(self) -> DagModule:
        """Return a copy of the graph in which the dropped slots contribute nothing; see `masked_model`."""
        return self._lay(self.analysis.dag.clone(), torch.float32)

    def removed(self) -> DagModule:
        """Return a graph without the dropped slots, without a proof; see `remove_channels`.

        Plan, costs and versions are noted in its provenance (``provenance["removals"]``).

        Raises:
            RemovalError: an op cannot be made smaller.
        """
        removed = Shrinking(self.analysis.dag.clone(), self.axes, self.kept).run()
        note_removal(removed, self.analysis, self.plan)
        return removed

    def prove(self, removed: DagModule, inputs: Sequence[Tensor] | None = None) -> Proof:
        """Compare a removed graph with the masked one at every vertex, and its cost with the predicted cost (R3).

        The comparison is in single precision, and is repeated in double precision if that does not agree. If pruning
        does not change the outputs, a `PruningWarning` says so. The proof is noted in the provenance of ``removed``.

        Args:
            removed: The result of `removed`.
            inputs: One tensor for each input vertex, of the analysed sizes; `Analysis.inputs` by default.

        Raises:
            RemovalMismatchError: the two graphs differ, and the message names the first vertex; or the FLOPs or the
                number of parameters differ from the prediction of the analysis.
        """
        require_graphs("prove()", removed)
        try:
            proof = self.compare(removed, inputs)
        except RemovalMismatchError:
            proof = self.compare(removed, inputs, torch.float64)
        self.check_costs(removed)
        note_proof(removed, self.plan, proof)
        if proof.effect == 0.0 and self._ought_to_show():
            message = "pruning changed nothing in the output, so the proof says little: is a scale or a branch zero?"
            warnings.warn(message, PruningWarning, stacklevel=3)
        return proof

    def compare(
        self, removed: DagModule, inputs: Sequence[Tensor] | None = None, dtype: torch.dtype = torch.float32
    ) -> Proof:
        """Compare a removed graph with the masked one at every vertex, at the kept slots.

        Args:
            removed: The result of `removed`.
            inputs: One tensor for each input vertex, of the analysed sizes; `Analysis.inputs` by default.
            dtype: Precision of the comparison: ``torch.float32`` or ``torch.float64``.

        Raises:
            RemovalMismatchError: names the first vertex whose shape differs from the predicted one, or whose value
                differs by more than the tolerance of the precision.
        """
        require_graphs("compare()", removed)
        # Cast before inserting masks: masked forms copy the dtype in which their op computes.
        before, masked = (in_precision(self.analysis.dag, dtype) for _ in range(2))
        graphs = Graphs(before, self._lay(masked, dtype), in_precision(removed, dtype))
        return compared(graphs, self.kept, self.axes, inputs or self.analysis.inputs, dtype)

    def recover(self, removed: DagModule, batches: Iterable[Any], **settings: Any) -> Recovery:
        """Repair the weights of a removed graph with data, without training; see `recover`."""
        require_graphs("recover()", removed)
        return recovered(removed, self.axes, self.kept, batches, RecoverySettings(**settings))

    def carry_optimizer(self, optimizer: Optimizer, dag: DagModule, removed: DagModule) -> Optimizer:
        """Return an optimizer over a removed graph with the kept part of the state; see `carry_optimizer`."""
        require_graphs("carry_optimizer()", dag, removed)
        return self._carrying(dag, removed).optimizer(optimizer)

    def carry_optimizer_(self, optimizer: Optimizer, dag: DagModule, removed: DagModule) -> None:
        """Let an optimizer go on with a removed graph; see `carry_optimizer_`."""
        require_graphs("carry_optimizer_()", dag, removed)
        self._carrying(dag, removed).optimizer_(optimizer)

    def carry_average(self, average: nn.Module, dag: DagModule, removed: DagModule) -> DagModule:
        """Return a removed graph with the weights of an averaged copy; see `carry_average`."""
        require_graphs("carry_average()", dag, removed)
        return self._carrying(dag, removed).averaged(average)

    def _carrying(self, dag: DagModule, removed: DagModule) -> Carrying:
        axes: dict[Tensor, Sequence[Axis]] = dict(learned_tensors(self.analysis))
        graph = {**dict(self.analysis.dag.named_parameters()), **dict(self.analysis.dag.named_buffers())}
        axes |= {graph[name]: each for name, each in self.analysis.parameter_axes.items() if name in graph}
        return Carrying(dag, removed, self.kept, axes)

    def _lay(self, dag: DagModule, dtype: torch.dtype) -> DagModule:
        masks = {atom: mask.to(dtype) for atom, mask in self._masks.items()}
        lay_masks(dag, self.analysis, mask_lookup(self.analysis.solver, masks))
        return dag

    def check_costs(self, removed: DagModule) -> None:
        """Compare FLOPs and parameters of a removed graph with the predicted ones; graphs without weights will do.

        Nothing is compared if an orbit is empty, since vertices were deleted then.

        Raises:
            RemovalMismatchError: they differ; the message gives both numbers.
            NotAGraphError: ``removed`` is a model that was not converted.
        """
        require_graphs("check_costs()", removed)
        analysis, counts = self.analysis, self.plan.atom_counts(self.analysis)
        if not all(counts.values()):
            return
        after = analyze(removed, analysis._example_inputs, registry=analysis.registry)
        pairs = {
            "FLOPs": (analysis.cost(counts), after.cost()),
            "parameters": (analysis.parameters_count(counts), after.parameters_count()),
        }
        for what, (predicted, found) in pairs.items():
            if predicted != found:
                message = f"the pruned graph has {found} {what}, the analysis predicts {predicted}; please report it"
                raise RemovalMismatchError(None, abs(found - predicted), message)

    def _ought_to_show(self) -> bool:
        """Return whether the plan removes something, and keeps all slots of the outputs."""
        names = [vertex.name for vertex in self.analysis.dag.output_vertex(training=False).predecessors]
        keeps_outputs = all(self.kept.is_whole(axes) for name in names for axes in self.axes.outputs(name))
        return self.plan != Plan.whole(self.analysis) and keeps_outputs


def masked_model(
    dag: DagModule, plan: Plan, *, example_inputs: Any = None, analysis: Analysis | None = None
) -> DagModule:
    """Return a copy of a graph in which the slots that the plan drops contribute nothing.

    Every edge into a contraction gets a mask (M1), and ops whose statistics run over a masked axis are replaced by
    their masked form (M3), so the copy computes what the graph without these slots computes (M2).

    Args:
        dag: The graph; it is not changed.
        plan: The kept slots of each orbit.
        example_inputs: As for `analyze`.
        analysis: The analysis of ``dag``, if there is one already.

    Raises:
        PlanError: the plan does not fit the graph.
        AnalysisError: the analysis is of another graph, or the graph was edited since.
    """
    require_graphs("masked_model()", dag)
    return _cut(dag, plan, example_inputs, analysis).masked()


def remove_channels(
    dag: DagModule, plan: Plan, verify: bool = True, *, example_inputs: Any = None,  # noqa: FBT001, FBT002
    analysis: Analysis | None = None,
) -> DagModule:  # fmt: skip
    """Return a graph without the slots that the plan drops, which has no masks.

    Names, training modes, devices, dtypes and ``requires_grad`` are those of ``dag``. So are the keys of the state
    dict, except for deleted vertices and the biases that replace vertices with empty operands (R2).

    Args:
        dag: The graph; it is not changed.
        plan: The kept slots of each orbit.
        verify: Whether to prove that the result equals the masked graph at every vertex (R3).
        example_inputs: As for `analyze`.
        analysis: The analysis of ``dag``, if there is one already.

    Raises:
        PlanError: the plan does not fit the graph.
        AnalysisError: the analysis is of another graph, or the graph was edited since.
        RemovalError: an op cannot be made smaller.
        RemovalMismatchError: the result differs from the masked graph; the message names the first vertex.
    """
    require_graphs("remove_channels()", dag)
    cut = _cut(dag, plan, example_inputs, analysis)
    pruned = cut.removed()
    if verify:
        cut.prove(pruned)
    return pruned


def recover(
    pruned: DagModule, reference: DagModule, batches: Iterable[Any], *, plan: Plan, analysis: Analysis | None = None,
    example_inputs: Any = None, **settings: Any,
) -> Recovery:  # fmt: skip
    """Repair the weights of a pruned graph with unlabelled data, without training; the arguments are not changed.

    Layers that read removed slots, or values that changed because of them, are solved one after the other, so that
    their results are as close as possible to those in the reference (docs/recovery.md). A layer never becomes worse on
    held-out samples than it would by a correction of its bias alone.

        cut = tdp.Cut(tdp.analyze(dag), plan)
        pruned = cut.removed()
        cut.prove(pruned)
        recovery = cut.recover(pruned, batches)   # the same as recover(pruned, dag, batches, plan=plan)
        print(recovery)
        recovery.dag.save("pruned.safetensors")

    Args:
        pruned: What `remove_channels` made of ``reference``. It may have been trained since.
        reference: The graph before pruning, with the weights that it is to be like.
        batches: Tensors, tuples that start with the inputs, or mappings by name of the input; all of them are held in
            memory, with the values of a few vertices. 512 samples are usually enough.
        plan: The plan that ``pruned`` was made by.
        analysis: That of ``reference``, if it was made before.
        example_inputs: As for `analyze`.
        **settings: The fields of `RecoverySettings`, by name.

    Raises:
        SettingsError: a setting is wrong.
        PlanError: the plan does not fit the reference.
        RecoveryError: ``pruned`` is not what the plan leaves, or the data takes more than ``most_bytes``.
        CalibrationError: there is no batch, or one lacks an input.
    """
    require_graphs("recover()", pruned, reference)
    return _cut(reference, plan, example_inputs, analysis).recover(pruned, batches, **settings)


def removal_proof(
    analysis: Analysis, plan: Plan, pruned: DagModule, inputs: Sequence[Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Proof:  # fmt: skip
    """Compare the masked graph with the removed one at every vertex; see `Cut.compare`."""
    require_graphs("removal_proof()", pruned)
    return Cut(analysis, plan).compare(pruned, inputs, dtype)


def carry_optimizer(
    optimizer: Optimizer, dag: DagModule, pruned: DagModule, plan: Plan, *, analysis: Analysis
) -> Optimizer:
    """Return an optimizer of the same type and settings over ``pruned``, with the kept part of the state.

    Parameters that exist in ``pruned`` only, such as the bias of a removed layer, join the first parameter group;
    parameters that are none of ``dag`` stay where they are.

    Args:
        optimizer: An optimizer over parameters of ``dag``.
        dag: The graph before pruning.
        pruned: The result of `remove_channels`.
        plan: The plan that was carried out.
        analysis: The analysis of ``dag``.

    Raises:
        AnalysisError: the analysis is of another graph, or the graph was edited since.
        RemovalError: a part of the optimizer's state is neither a scalar nor of the shape of its parameter.
    """
    require_graphs("carry_optimizer()", dag, pruned)
    return _cut(dag, plan, None, analysis).carry_optimizer(optimizer, dag, pruned)


def carry_optimizer_(
    optimizer: Optimizer, dag: DagModule, pruned: DagModule, plan: Plan, *, analysis: Analysis
) -> None:
    """Let an optimizer over parameters of ``dag`` go on with those of ``pruned`` and the kept part of its state.

    As `carry_optimizer`, but the optimizer stays the same object, so that schedules of learning rates, gradient scalers
    and everything else that refers to it keep working.
    """
    require_graphs("carry_optimizer_()", dag, pruned)
    _cut(dag, plan, None, analysis).carry_optimizer_(optimizer, dag, pruned)


def carry_average(
    average: nn.Module, dag: DagModule, pruned: DagModule, plan: Plan, *, analysis: Analysis
) -> DagModule:
    """Return a copy of ``pruned`` with the kept part of the weights and buffers of an averaged copy of ``dag``.

    Args:
        average: A module with the parameter names of ``dag``, such as the ``module`` of an ``AveragedModel``.
        dag: The graph before pruning.
        pruned: The result of `remove_channels`.
        plan: The plan that was carried out.
        analysis: The analysis of ``dag``.

    Raises:
        AnalysisError: the analysis is of another graph, or the graph was edited since.
    """
    require_graphs("carry_average()", dag, pruned)
    return _cut(dag, plan, None, analysis).carry_average(average, dag, pruned)


def _cut(dag: DagModule, plan: Plan, example_inputs: Any, analysis: Analysis | None) -> Cut:
    if analysis is None:
        return Cut(analyze(dag, example_inputs), plan)
    analysis.require(dag)
    return Cut(analysis, plan)
