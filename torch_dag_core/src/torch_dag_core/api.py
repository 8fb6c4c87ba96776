"""Every public name of the package; `torch_dag_core` imports this module when the first of them is used."""

from torch_dag_core.algorithms.algorithm import Algorithm, AlgorithmSpec, Losses, find_algorithm
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.analysis.comparing import Comparison, Difference, compare_module_outputs
from torch_dag_core.analysis.cost_table import CostTable, VertexCost, flops
from torch_dag_core.analysis.unconvertible import ClassReport, ConvertibilityReport, find_unconvertible
from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import (
    AlgorithmError,
    CheckpointError,
    CycleError,
    DuplicateOpError,
    ExampleInputsError,
    GraphError,
    InputError,
    ModelReferenceError,
    NotAGraphError,
    PluginError,
    PluginLoadError,
    PluginWarning,
    RewriteLimitError,
    SerializationError,
    SettingsError,
    StubError,
    TorchDagError,
    TraceError,
    UnknownAlgorithmError,
    UnknownOpError,
)
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import interpret
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.vertex import InnerVertex, InputVertex, Vertex
from torch_dag_core.patterns.regions import residual_blocks
from torch_dag_core.patterns.rewriting import Match, Pattern, RewriteResult, Rule, anything, chain, find, rewrite
from torch_dag_core.plugins.hookspecs import hookimpl
from torch_dag_core.plugins.loading import default_registry, list_plugins
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry
from torch_dag_core.serialization import load, save
from torch_dag_core.serialization.checkpoint_report import CheckpointReport
from torch_dag_core.serialization.checkpoints import compare_checkpoint, load_checkpoint

__all__ = [
    "Algorithm",
    "AlgorithmError",
    "AlgorithmSpec",
    "AtomicSpec",
    "Call",
    "CheckpointError",
    "CheckpointReport",
    "ClassReport",
    "Comparison",
    "CompressionAlgorithm",
    "CompressionReport",
    "ConvertibilityReport",
    "CostTable",
    "CycleError",
    "DagModule",
    "Difference",
    "DuplicateOpError",
    "ExampleInputsError",
    "GraphError",
    "InnerVertex",
    "InputError",
    "InputVertex",
    "Losses",
    "Match",
    "ModelReferenceError",
    "Normalizer",
    "NotAGraphError",
    "Op",
    "OpSpec",
    "Pattern",
    "PluginError",
    "PluginLoadError",
    "PluginWarning",
    "Registry",
    "RewriteLimitError",
    "RewriteResult",
    "Rule",
    "SerializationError",
    "SettingsError",
    "StubError",
    "TorchDagError",
    "TraceError",
    "UnknownAlgorithmError",
    "UnknownOpError",
    "Value",
    "Vertex",
    "VertexCost",
    "anything",
    "build_from_unstructured_module",
    "chain",
    "compare_checkpoint",
    "compare_module_outputs",
    "default_registry",
    "find",
    "find_algorithm",
    "find_unconvertible",
    "flops",
    "hookimpl",
    "interpret",
    "list_plugins",
    "load",
    "load_checkpoint",
    "residual_blocks",
    "rewrite",
    "save",
]
