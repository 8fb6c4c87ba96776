"""Any PyTorch model as one clean, editable graph that saves to one file and loads without the model's source.

>>> import torch_dag_core as td
>>> dag = td.build_from_unstructured_module(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()))
>>> print(dag)
DagModule(
  input: (*, 4) float32
  0 = Linear(in_features=4, out_features=2, bias=True)(input)
  1 = ReLU()(0)
  output: 1
)
"""

from torch_dag_core.algorithms import Algorithm, AlgorithmSpec
from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.dag import DagModule
from torch_dag_core.errors import (
    CycleError,
    DuplicateOpError,
    ExampleInputsError,
    GraphError,
    InputError,
    PluginError,
    PluginLoadError,
    PluginWarning,
    RewriteLimitError,
    SerializationError,
    TorchDagError,
    TraceError,
    UnknownOpError,
)
from torch_dag_core.hookspecs import hookimpl
from torch_dag_core.op import Op
from torch_dag_core.patterns import Match, Pattern, RewriteResult, Rule, anything, chain, find, rewrite
from torch_dag_core.plugins import default_registry, list_plugins
from torch_dag_core.regions import residual_blocks
from torch_dag_core.registry import AtomicSpec, Normalizer, OpSpec, Registry
from torch_dag_core.serialization import load, save
from torch_dag_core.vertex import InnerVertex, InputVertex, Vertex

__all__ = [
    "Algorithm",
    "AlgorithmSpec",
    "AtomicSpec",
    "Call",
    "CycleError",
    "DagModule",
    "DuplicateOpError",
    "ExampleInputsError",
    "GraphError",
    "InnerVertex",
    "InputError",
    "InputVertex",
    "Match",
    "Normalizer",
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
    "TorchDagError",
    "TraceError",
    "UnknownOpError",
    "Value",
    "Vertex",
    "anything",
    "build_from_unstructured_module",
    "chain",
    "default_registry",
    "find",
    "hookimpl",
    "list_plugins",
    "load",
    "residual_blocks",
    "rewrite",
    "save",
]
