"""One pass over a pruned graph beside its reference, in which layers are solved in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import walk
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex
from torch_dag_pruning.recovery import batch_norms
from torch_dag_pruning.recovery.agenda import Agenda
from torch_dag_pruning.recovery.held_out import HeldOut
from torch_dag_pruning.recovery.placing import Placing
from torch_dag_pruning.recovery.settings import RecoverySettings
from torch_dag_pruning.recovery.solving import Correction, Problem
from torch_dag_pruning.recovery.walking import Ahead, Parts, called, inputs_of
from torch_dag_pruning.statistics.batches import Batch
from torch_dag_pruning.statistics.contractions import Contraction, Places


@dataclass(frozen=True)
class LayerRecovery:
    """What was done to one layer.

    Errors are mean squares on held-out rows of what the results lack, relative to the variance of the wanted results;
    NaN where no rows were held out.

    Attributes:
        vertex: Name of the vertex; the first, where several call one module.
        kind: ``"least_squares"``, ``"mean"`` or ``"none"``.
        alpha: Strength of the ridge; None without least squares.
        rows: How many rows the solution was fitted to.
        before: Error without a change.
        mean: Error with the mean folded into the bias.
        after: Error as it is now.
    """

    vertex: str
    kind: str
    alpha: float | None
    rows: int
    before: float
    mean: float
    after: float


@dataclass
class Repair:
    """A pruned graph being repaired.

    Attributes:
        dag: The pruned graph, in evaluation mode, which is changed.
        reference: The analysed graph, in evaluation mode.
        agenda: What there is to do.
        settings: How to do it.
        batches: The data.
        layers: What was done, by vertex.
        outputs: What the repaired graph returned, by vertex.
        wanted: What the reference returned.
    """

    dag: DagModule
    reference: DagModule
    agenda: Agenda
    settings: RecoverySettings
    batches: Sequence[Batch]
    layers: dict[str, LayerRecovery] = field(default_factory=dict)
    outputs: dict[str, Parts] = field(default_factory=dict)
    wanted: dict[str, Parts] = field(default_factory=dict)
    _problems: dict[str, Problem] = field(default_factory=dict)
    _bases: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _captured: dict[str, Parts] = field(default_factory=dict)
    _targets: dict[str, Parts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.placing = Placing(self.dag, self.agenda.registry, self.agenda.calls)
        self.held_out = HeldOut.of(self.batches, self.settings.held_out)
        self.generator = torch.Generator().manual_seed(self.settings.seed)

    def run(self) -> None:
        """Repair the graph.

        A module that is called several times is solved once over all of its calls. Until the last of them has been
        seen, its weights are those that fit the calls so far, so everything else is solved again in a second pass.
        """
        for vertex in self.agenda.shared:
            self.placing.give_bias(vertex, self.agenda.layers[vertex.name])
            module: Any = vertex.module
            self._bases[vertex.name] = (module.weight.detach().clone(), module.bias.detach().clone())
        if self.agenda.shared:
            self._pass(0, 2)
            self._bases.clear()
            self.agenda.settle_shared()
            self._pass(1, 2)
        else:
            self._pass(0, 1)

    def _pass(self, number: int, passes: int) -> None:
        agenda = self.agenda
        self._captured.clear()
        self._targets.clear()
        others, unneeded, vertices = agenda.others, agenda.unneeded_after, agenda.vertices
        ahead = Ahead(self.reference, self.batches, {*agenda.layers, *others}, agenda.norms)
        done = number * vertices
        for vertex, value in walk(self.dag, inputs_of(self.dag, self.batches), self._caller(ahead), training=False):
            if isinstance(vertex, OutputVertex):
                continue
            if vertex.name in others:
                self._captured[vertex.name] = value
            if vertex.name in agenda.returned:
                self.outputs[vertex.name] = value
            for name in unneeded.get(vertex.name, ()):
                self._captured.pop(name, None)
                ahead.forget(name)
            done += isinstance(vertex, InnerVertex)
            if self.settings.progress is not None:
                self.settings.progress(done, passes * vertices)
        ahead.finish()
        self.wanted = ahead.outputs

    def _caller(self, ahead: Ahead) -> Any:
        def call(vertex: InnerVertex, operands: tuple[Parts, ...]) -> Parts:
            if vertex.name in self.agenda.layers:
                self._layer(vertex, operands[0], ahead)
            elif vertex.name in self.agenda.norms:
                self._norm(vertex, operands[0], ahead)
            return called(vertex, operands, len(self.batches))

        return call

    # Layers ----------------------------------------------------------------------------------------------------

    def _layer(self, vertex: InnerVertex, read: Parts, ahead: Ahead) -> None:
        contraction = self.agenda.layers[vertex.name]
        name = self.agenda.first_call(vertex)
        self._reset(vertex, name)
        wanted = self._wanted(vertex, ahead)
        problem = self._problems.setdefault(name, Problem()) if name in self._bases else Problem()
        for number, (x, y) in enumerate(zip(read, wanted, strict=True)):
            self._observe(problem, vertex, contraction, number, x, y)
        correction = self._solved(problem)
        self.placing.place(vertex, contraction, correction)
        self.layers[name] = _record(name, problem, correction)
        norm = self.agenda.norm_behind(vertex)
        if norm is not None:
            self._targets[norm] = wanted

    def _reset(self, vertex: InnerVertex, name: str) -> None:
        """Give a shared module the weights back that all of its calls are measured with."""
        if name in self._bases:
            module: Any = vertex.module
            with torch.no_grad():
                module.weight.copy_(self._bases[name][0])
                module.bias.copy_(self._bases[name][1])

    def _wanted(self, vertex: InnerVertex, ahead: Ahead) -> Parts:
        """Return what the results of a layer should be."""
        parts = [self.agenda.taken(vertex.name, part) for part in ahead.result(vertex.name)]
        self._release(vertex, ahead)
        join = self.agenda.joins.get(vertex.name)
        if join is None or join.other not in self._captured:
            return parts
        others = zip(parts, ahead.result(join.other), self._captured[join.other], strict=True)
        return [self._corrected(part, join.other, old, new, join.needed) for part, old, new in others]

    def _corrected(self, part: Tensor, other: str, old: Tensor, new: Tensor, needed: Any) -> Tensor:
        lacking = self.agenda.taken(other, old) - new
        corrected: Tensor = part + needed(lacking) if lacking.shape == part.shape else part
        return corrected

    @torch.no_grad()
    def _observe(
        self, problem: Problem, vertex: InnerVertex, contraction: Contraction, number: int, x: Tensor, y: Tensor
    ) -> None:  # fmt: skip
        module: Any = vertex.module
        samples = self.batches[number].samples
        most = max(1, self.settings.positions * samples // max(y.shape[0], 1))
        places = Places.drawn(y, contraction.channel, most, self.generator)
        rows = contraction.operand(module, x, places).to(torch.float64)
        lacks = contraction.result(module, y, places).to(torch.float64)
        wanted = lacks
        lacks = lacks - rows @ contraction.matrix(module, module.weight).to(torch.float64).mT
        if module.bias is not None:
            lacks = lacks - module.bias.to(torch.float64).reshape(lacks.shape[0], 1, -1)
        held = self.held_out.rows(number, places.index.shape)
        problem.add(rows[:, ~held], lacks[:, ~held])
        problem.hold(rows[:, held], lacks[:, held], wanted[:, held])

    def _solved(self, problem: Problem) -> Correction:
        if self.settings.method == "mean":
            return problem.mean()
        return problem.best(self.settings.alphas)

    # Batch norms -----------------------------------------------------------------------------------------------

    def _norm(self, vertex: InnerVertex, read: Parts, ahead: Ahead) -> None:
        target, operand = self._targets.pop(vertex.name, None), ahead.operand(vertex.name)
        original = self.reference.get_vertex_by_name(vertex.name)
        assert isinstance(original, InnerVertex)
        if self.settings.batch_norm == "estimate" and batch_norms.describes(original.module, operand):
            batch_norms.estimate(vertex.module, read)
        else:
            name = vertex.predecessors[0].name
            wanted = target or [self.agenda.taken(name, part) for part in operand]
            batch_norms.match(vertex.module, read, wanted)
        self._release(vertex, ahead)

    def _release(self, vertex: InnerVertex, ahead: Ahead) -> None:
        """Drop the values of a vertex, unless a layer will be corrected by them; then its addition drops them."""
        if vertex.name not in self.agenda.others:
            ahead.forget(vertex.name)


def _record(name: str, problem: Problem, correction: Correction) -> LayerRecovery:
    errors = (problem.relative_error(change) for change in (problem.unchanged(), problem.mean(), correction))
    return LayerRecovery(name, correction.kind, correction.alpha, problem.count, *errors)
