"""Test cases of the plugin contract: one record of a plugin with one of its examples."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import PluginError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.calling import errors_attributed_to, release_name
from torch_dag_core.plugins.loading import default_registry, list_plugins
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry

Record = OpSpec | AtomicSpec | Normalizer


class Holder(nn.Module):
    """A model that holds one module and calls it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, *inputs: Any) -> Any:
        """Call the module."""
        return self.inner(*inputs)


@dataclass(frozen=True)
class Case:
    """One example of one record.

    Attributes:
        record: The record that a plugin registered.
        number: Index of the example.
        module: An instance of the class, or a model that calls the function.
        inputs: Arguments for a call of the module.
        registry: The vocabulary with which the example is converted and saved.
    """

    record: Record
    number: int
    module: nn.Module
    inputs: tuple[Any, ...]
    registry: Registry

    @property
    def name(self) -> str:
        """Name of the record with the number of the example: ``acme.clip-0``."""
        return f"{record_name(self.record)}-{self.number}"

    @property
    def op(self) -> OpSpec | None:
        """The record if it is an op, else None."""
        return self.record if isinstance(self.record, OpSpec) else None

    def graph(self) -> DagModule:
        """Return a graph of a copy of the module: the single vertex ``op`` if the record is an op, else converted."""
        if self.op is None:
            return self.converted()
        dag = DagModule()
        inputs = [dag.add_input(f"x{i}") for i in range(len(self.inputs))]
        dag.set_output(dag.add_vertex("op", copy.deepcopy(self.module), inputs))
        return dag

    def converted(self) -> DagModule:
        """Convert a model that holds a copy of the module as ``inner``, and return the graph."""
        model = Holder(copy.deepcopy(self.module))
        return build_from_unstructured_module(model, (copied(self.inputs), {}), registry=self.registry)

    def wanted(self, *, training: bool = False) -> Any:
        """Return the result of the module itself."""
        return run(self.module, self.inputs, training=training)


def run(module: nn.Module, inputs: tuple[Any, ...], *, training: bool = False) -> Any:
    """Call a copy of a module on copies of the inputs, with a fixed seed."""
    module = copy.deepcopy(module).train(training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module(*copied(inputs))


def copied(value: Any) -> Any:
    """Return a structure with a copy of every tensor."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return tuple(map(copied, value)) if isinstance(value, tuple) else value


def record_name(record: Record) -> str:
    """Return the name of a record in the names of tests."""
    if isinstance(record, OpSpec):
        return record.key
    return record.name if isinstance(record, AtomicSpec) else f"normalizer of {record.functions[0]}"


def records_of(owner: str, registry: Registry) -> list[Record]:
    """Return everything that one distribution registered."""
    everything: list[Record] = [*registry.ops(), *registry.atomic_specs(), *registry.normalizers()]
    return [record for record in everything if record.owner == owner]


def cases_of(record: Record, registry: Registry) -> list[Case]:
    """Return a case for each example of a record.

    Raises:
        PluginError: the examples cannot be made, or are not pairs of a module and a tuple.
    """
    what = f"examples() of {record_name(record)!r}"
    with errors_attributed_to(record.owner, what):
        pairs: Iterable[Any] = [] if record.examples is None else list(record.examples())
    found = []
    for number, pair in enumerate(pairs):
        if not _is_example(pair):
            message = (
                f"{what} of {release_name(record.owner)} returned {pair!r:.100}, not pairs (module, tuple of inputs)"
            )
            raise PluginError(record.owner, message)
        module, inputs = pair
        found.append(Case(record, number, module, inputs, registry))
    return found


def plugin_cases(plugin: str) -> list[Case]:
    """Return the cases of everything that an installed plugin registered."""
    registry = default_registry()
    return [case for record in plugin_records(plugin) for case in cases_of(record, registry)]


def plugin_records(plugin: str) -> list[Record]:
    """Return everything that an installed plugin, named by itself or its distribution, registered."""
    registry = default_registry()
    owners = {info.distribution for info in list_plugins() if plugin in (info.name, info.distribution)}
    return [record for owner in sorted(owners) for record in records_of(owner, registry)]


def _is_example(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], nn.Module) and isinstance(pair[1], tuple)
