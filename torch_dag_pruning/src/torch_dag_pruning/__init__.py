"""Channel pruning of torch-dag graphs, in which masked equals removed."""

from torch_dag_pruning.analysis.analysis import Analysis, Orbit, Place, analyze
from torch_dag_pruning.axes import Atom, Axis, AxisSolver, Cause, Concat, Fixed, Product
from torch_dag_pruning.axes.relation import AxisRule, Context, Relation, Sink, axis_rule
from torch_dag_pruning.errors import (
    AnalysisError,
    PlanError,
    PruningError,
    PruningWarning,
    RemovalError,
    RemovalMismatchError,
)
from torch_dag_pruning.masked.masked_model import masked_model
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.optimizer import carry_optimizer
from torch_dag_pruning.removal.proof import Proof, removal_proof
from torch_dag_pruning.removal.removal import remove_channels

__all__ = [
    "Analysis",
    "AnalysisError",
    "Atom",
    "Axis",
    "AxisRule",
    "AxisSolver",
    "Cause",
    "Concat",
    "Context",
    "Fixed",
    "ImportanceCriterion",
    "Orbit",
    "Place",
    "Plan",
    "PlanError",
    "Product",
    "Proof",
    "PruningError",
    "PruningWarning",
    "Relation",
    "RemovalError",
    "RemovalMismatchError",
    "Sink",
    "analyze",
    "axis_rule",
    "carry_optimizer",
    "masked_model",
    "removal_proof",
    "remove_channels",
]
