"""The hooks that channel pruning implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from torch_dag_core.registry import OpSpec
    from torch_dag_core.testing.checks import ContractCheck
    from torch_dag_pruning.criteria import ImportanceCriterion


@hookimpl
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add the op that lays a mask over an edge."""
    from torch_dag_core.codecs import OpCodec
    from torch_dag_core.registry import OpSpec
    from torch_dag_pruning.mask_op import Mask

    return (OpSpec(key="pruning.mask", target=Mask, codec=OpCodec(Mask)),)


@hookimpl
def torch_dag_commands() -> Iterable[click.Command]:
    """Add ``torch-dag prune``."""
    from torch_dag_pruning.cli.command import prune

    return (prune,)


@hookimpl(optionalhook=True)
def torch_dag_importance_criteria() -> Iterable[ImportanceCriterion]:
    """Add magnitude and chance."""
    from torch_dag_pruning.criteria import BUILT_IN

    return BUILT_IN


@hookimpl
def torch_dag_contract_checks() -> Iterable[ContractCheck]:
    """Add that ops are pruned exactly."""
    from torch_dag_pruning.contract import CHECKS

    return CHECKS
