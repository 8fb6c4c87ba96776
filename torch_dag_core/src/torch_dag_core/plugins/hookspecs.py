"""Everything a plugin can do, as one page of hooks: functions that take data and return data.

A plugin is a module named by an entry point of the group ``torch_dag``. It implements any of these functions, each
marked with `torch_dag_core.hookimpl`, and leaves out the arguments it does not need. Plugins are asked in the order of
their names, the core first; where the first answer wins, the core is asked last. A hook that another plugin specifies
is implemented with ``@hookimpl(optionalhook=True)``, so that nothing depends on that plugin.

A plugin module may state the version of this page that it was written for: ``TORCH_DAG_HOOK_API = 1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    from torch import nn

    from torch_dag_core.algorithms.algorithm import AlgorithmSpec
    from torch_dag_core.cli.coverage.check import CoverageCheck
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_core.plugins.graph_formats import GraphFormat, Overlay
    from torch_dag_core.plugins.model_sources import ModelList
    from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec
    from torch_dag_core.testing.checks import ContractCheck

PROJECT = "torch_dag"
HOOK_API = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add ops to the vocabulary."""


@hookspec
def torch_dag_atomic_modules() -> Iterable[AtomicSpec]:
    """Name module classes that become one vertex instead of being traced through."""


@hookspec
def torch_dag_normalizers() -> Iterable[Normalizer]:
    """Add conversions of recorded calls into vertices; those of plugins are asked before the core's."""


@hookspec
def torch_dag_algorithms() -> Iterable[AlgorithmSpec]:
    """Add algorithms that run on a graph."""


@hookspec(firstresult=True)
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer inputs to trace this model with; None lets others answer."""


@hookspec(firstresult=True)
def torch_dag_model_source(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that a reference such as ``timm:resnet18`` names; None lets others answer.

    Answer only references that start with your own prefix, and raise `ModelReferenceError` for a name under that
    prefix which you do not have. ``options`` are keyword arguments for whatever builds the model; ``pretrained=True``
    among them asks for trained weights, without which those of a model are random.
    """


@hookspec
def torch_dag_model_lists() -> Iterable[ModelList]:
    """List the models under your own prefix, for commands that go through all of them."""


@hookspec
def torch_dag_commands() -> Iterable[click.Command]:
    """Add commands to ``torch-dag``."""


@hookspec
def torch_dag_graph_formats() -> Iterable[GraphFormat]:
    """Add kinds of files that ``torch-dag show --out`` writes, by the ending of its name, and what notebooks show."""


@hookspec
def torch_dag_overlays(dag: DagModule) -> Iterable[Overlay]:
    """Name sets of vertices of a graph, such as those whose channels are pruned together, for pictures to show."""


@hookspec
def torch_dag_contract_checks() -> Iterable[ContractCheck]:
    """Add checks to the contract that `torch_dag_core.testing` runs over what plugins register."""


@hookspec
def torch_dag_coverage_checks() -> Iterable[CoverageCheck]:
    """Add checks of every converted model to ``torch-dag coverage``."""
