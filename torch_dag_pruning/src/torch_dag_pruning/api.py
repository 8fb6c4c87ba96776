"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_pruning.analysis.analysis import Analysis, Orbit, Place, analyze
from torch_dag_pruning.axes import Atom, Axis, AxisSolver, Cause, Concat, Fixed, Product
from torch_dag_pruning.axes.relation import AxisRule, Context, Relation, Sink, axis_rule
from torch_dag_pruning.channel_pruning import ChannelPruning
from torch_dag_pruning.cut import (
    Cut,
    carry_average,
    carry_optimizer,
    carry_optimizer_,
    masked_model,
    recover,
    removal_proof,
    remove_channels,
)
from torch_dag_pruning.distillation.distillation import Distillation
from torch_dag_pruning.errors import (
    AnalysisError,
    CalibrationError,
    LatencyError,
    PlanError,
    PruningError,
    PruningWarning,
    RecoveryError,
    RemovalError,
    RemovalMismatchError,
)
from torch_dag_pruning.latency.latency import Latency
from torch_dag_pruning.latency.providers import LatencyProvider
from torch_dag_pruning.learning.config import LearnedChannelConfig
from torch_dag_pruning.learning.learned import LearnedChannelPruning
from torch_dag_pruning.learning.sharding import shard_
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.one_shot_config import OneShotConfig
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.limits import Limits
from torch_dag_pruning.plan.outputs import analyze_freed, kept_outputs
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.recovery.recovery import Recovery
from torch_dag_pruning.recovery.settings import RecoverySettings
from torch_dag_pruning.removal.proof import Proof
from torch_dag_pruning.sensitivity_scan import Sensitivity, sensitivity
from torch_dag_pruning.statistics.statistics import Statistics, StatisticsSettings

__all__ = [
    "Analysis",
    "AnalysisError",
    "Atom",
    "Axis",
    "AxisRule",
    "AxisSolver",
    "CalibrationError",
    "Cause",
    "ChannelPruning",
    "Concat",
    "Context",
    "Cut",
    "Distillation",
    "Fixed",
    "ImportanceCriterion",
    "Latency",
    "LatencyError",
    "LatencyProvider",
    "LearnedChannelConfig",
    "LearnedChannelPruning",
    "Limits",
    "Masking",
    "OneShotChannelPruning",
    "OneShotConfig",
    "Orbit",
    "Place",
    "Plan",
    "PlanError",
    "Product",
    "Proof",
    "PruningError",
    "PruningWarning",
    "Recovery",
    "RecoveryError",
    "RecoverySettings",
    "Relation",
    "RemovalError",
    "RemovalMismatchError",
    "Sensitivity",
    "Sink",
    "Statistics",
    "StatisticsSettings",
    "analyze",
    "analyze_freed",
    "axis_rule",
    "carry_average",
    "carry_optimizer",
    "carry_optimizer_",
    "kept_outputs",
    "masked_model",
    "recover",
    "removal_proof",
    "remove_channels",
    "sensitivity",
    "shard_",
]
