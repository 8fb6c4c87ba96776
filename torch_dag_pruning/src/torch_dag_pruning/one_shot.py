"""One-shot pruning from a model to a file, step by step: what the command does."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.analysis.analysis import Analysis, analyze
from torch_dag_pruning.measuring import Costs, median_latencies
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.proof import Proof, prove
from torch_dag_pruning.removal.removal import remove


@dataclass
class OneShot:
    """A graph, its analysis, and what became of it so far.

    Attributes:
        dag: The graph before pruning.
        analysis: Of that graph.
        plan: What stays, after `choose`.
        pruned: What is left, after `remove`.
        proof: Masked against removed, after `prove`.
        before, after: Costs of both graphs, after `finish`.
    """

    dag: DagModule
    analysis: Analysis
    plan: Plan = field(init=False)
    pruned: DagModule = field(init=False)
    proof: Proof = field(init=False)
    before: Costs = field(init=False)
    after: Costs = field(init=False)

    @classmethod
    def of(cls, dag: DagModule, example_inputs: Any = None) -> OneShot:
        """Analyse a graph."""
        return cls(dag, analyze(dag, example_inputs))

    def choose(self, criterion: str, keep_flops: float, *, scope: str = "global", multiple_of: int = 1) -> None:
        """Decide what stays; see `Plan.by_importance`."""
        self.plan = Plan.by_importance(self.analysis, criterion, keep_flops, scope=scope, multiple_of=multiple_of)

    def remove(self) -> None:
        """Remove the rest."""
        self.pruned = remove(self.analysis, self.plan)

    def prove(self) -> None:
        """Compare the masked with the removed graph; raises where they differ."""
        self.proof = prove(self.analysis, self.plan, self.pruned)

    @property
    def timed_on(self) -> str:
        """The size of the first input."""
        return "x".join(str(size) for size in self.analysis.inputs[0].shape)

    def finish(self, path: Path, plan_path: Path | None = None) -> None:
        """Save the pruned graph, and measure both."""
        self.pruned.save(path)
        if plan_path is not None:
            self.plan.save(plan_path)
        inputs = self.analysis.inputs
        old_latency, new_latency = median_latencies((self.dag, self.pruned), inputs)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            old_path = Path(folder) / "before.safetensors"
            self.dag.save(old_path)
            self.before = Costs.of(self.dag, round(float(self.analysis.cost())), old_path, old_latency)
        left = self.analysis.cost(self.plan.atom_counts(self.analysis))
        self.after = Costs.of(self.pruned, round(float(left)), path, new_latency)
