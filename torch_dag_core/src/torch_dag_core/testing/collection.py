"""The contract of one plugin as a list of tests, and the pytest hooks that collect them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from torch_dag_core.algorithms.algorithm import algorithms
from torch_dag_core.plugins.loading import contributions, default_registry, named_contributions, require
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.testing.cases import Record, cases_of, plugin_records, record_name
from torch_dag_core.testing.checks import CHECKS, ContractCheck, ContractError

if TYPE_CHECKING:
    import pytest

FIXTURE = "torch_dag_contract"
MARKER = "torch_dag_plugin"


@dataclass(frozen=True)
class ContractTest:
    """One test of a contract: a check bound to its case."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the test."""
        self.run()


def contract(plugin: str) -> list[ContractTest]:
    """Return all tests of an installed plugin, given by its own name or that of its distribution."""
    registry = default_registry()
    tests = [ContractTest("takes part", partial(takes_part, plugin))]
    for record in plugin_records(plugin):
        tests += record_tests(record, registry)
    return tests


def record_tests(record: Record, registry: Registry) -> list[ContractTest]:
    """Return all tests of one record; a single failing test if it has no examples."""
    cases = cases_of(record, registry)
    if not cases:
        return [ContractTest(f"{record_name(record)}-has examples", partial(_no_examples, record))]
    return [
        ContractTest(f"{case.name}-{check.name}", partial(check.run, case))
        for case in cases
        for check in all_checks()
        if check.applies(case)
    ]


def all_checks() -> tuple[ContractCheck, ...]:
    """Return the core's checks and those of plugins."""
    return (*CHECKS, *(check for _, check in contributions("torch_dag_contract_checks", ContractCheck)))


def takes_part(plugin: str) -> None:
    """A plugin loads, and everything that it adds is accepted.

    Raises:
        PluginLoadError: the plugin cannot be loaded, or something that it adds is refused.
    """
    algorithms()
    named_contributions("torch_dag_commands", click.Command)
    require(plugin)


def _no_examples(record: Record) -> None:
    message = f"{record_name(record)} has no examples; pass examples=, a function that returns (module, inputs) pairs"
    raise ContractError(message)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker with pytest."""
    config.addinivalue_line("markers", f"{MARKER}(name): the plugin whose contract the fixture {FIXTURE} runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test that takes the fixture over all tests of the contract."""
    if FIXTURE not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None or len(marker.args) != 1:
        message = f"a test that takes {FIXTURE} needs @pytest.mark.{MARKER}(NAME OF THE PLUGIN)"
        raise ValueError(message)
    tests = contract(marker.args[0])
    metafunc.parametrize(FIXTURE, tests, ids=[test.name for test in tests])
