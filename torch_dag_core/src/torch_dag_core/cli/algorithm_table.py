"""The command ``torch-dag algorithms``."""

from __future__ import annotations

import click
from rich.table import Table
from rich.text import Text

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, algorithms, find_algorithm
from torch_dag_core.cli.answers import answer, answers, say
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.setting_values import show_default, show_type

_STYLES = {"stub": "yellow", "experimental": "cyan"}


@click.command(name="algorithms", epilog=example("torch-dag algorithms --json"))
@click.argument("name", required=False)
@answers
def list_algorithms(name: str | None) -> None:
    """Show the installed algorithms, or the settings of the one called NAME."""
    if name is None:
        say(_all())
        answer(algorithms=[_facts(spec) for spec in algorithms().values()])
    else:
        spec = find_algorithm(name)
        say(_settings(spec))
        answer(**_facts(spec), settings=[
            {"name": each.name, "type": show_type(each.hint), "default": show_default(each), "meaning": each.help}
            for each in spec.settings().values()
        ])  # fmt: skip


def _facts(spec: AlgorithmSpec) -> dict[str, str]:
    return {"name": spec.name, "distribution": spec.owner, "status": spec.status, "summary": spec.summary}


def _all() -> Table | Text:
    found = algorithms()
    if not found:
        return Text("no installed plugin offers an algorithm; try: pip install torch-dag-pruning")
    table = Table("name", "distribution", "status", "summary")
    for spec in found.values():
        table.add_row(spec.name, spec.owner, Text(spec.status, style=_STYLES.get(spec.status, "green")), spec.summary)
    return table


def _settings(spec: AlgorithmSpec) -> Table:
    table = Table("setting", "type", "default", "meaning", title=f"{spec.name} ({spec.status}): {spec.summary}")
    for setting in spec.settings().values():
        table.add_row(*map(Text, (setting.name, show_type(setting.hint), show_default(setting), setting.help)))
    return table
