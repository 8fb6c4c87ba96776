"""The hooks: the only module that torch-dag knows by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
import torch
from torch import nn

from acme_torch_dag import ops, rounding
from acme_torch_dag.modules import AcmeNet
from torch_dag_core.algorithms.algorithm import AlgorithmSpec
from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.hookspecs import hookimpl
from torch_dag_core.plugins.registry import Normalizer, OpSpec

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add the module that cannot be traced through, and the activation."""
    return gather(ops.__name__, OpSpec)


@hookimpl
def torch_dag_normalizers() -> Iterable[Normalizer]:
    """Turn calls of `snake` into vertices."""
    return gather(ops.__name__, Normalizer)


@hookimpl
def torch_dag_algorithms() -> Iterable[AlgorithmSpec]:
    """Add rounding."""
    return [rounding.SPEC]


@hookimpl
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer inputs for the network."""
    return (torch.zeros(2, 6),) if isinstance(model, AcmeNet) else None


@hookimpl
def torch_dag_model_source(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build ``acme:net``."""
    if not reference.startswith("acme:"):
        return None
    if reference != "acme:net":
        message = f"acme has no model {reference.removeprefix('acme:')!r}; it has: net"
        raise ModelReferenceError(message)
    return AcmeNet(**options)


@hookimpl
def torch_dag_commands() -> Iterable[click.Command]:
    """Add ``torch-dag acme-count FILE``."""
    return [count]


@hookimpl(optionalhook=True)
def torch_dag_axis_rules() -> Iterable[Any]:
    """Say how the two ops relate axes."""
    from acme_torch_dag import pruning
    from torch_dag_pruning import AxisRule

    return gather(pruning.__name__, AxisRule)


@hookimpl(optionalhook=True)
def torch_dag_importance_criteria() -> Iterable[Any]:
    """Add a criterion."""
    from acme_torch_dag import pruning

    return [pruning.LargestWeight()]


@click.command("acme-count")
@click.argument("file", type=click.Path(exists=True))
def count(file: str) -> None:
    """Count the vertices of Acme in a saved graph."""
    from torch_dag_core.graph.dag import DagModule

    kinds = (ops.OutlierClip, ops.Snake)
    click.echo(sum(isinstance(vertex.module, kinds) for vertex in DagModule.load(file).inner_vertices))
