"""The command ``torch-dag inspect``: what can be pruned of a model, what it would save, and what is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from torch_dag_core.cli.answers import answer, answers, say, step
from torch_dag_core.cli.console import console
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.quantities import count

if TYPE_CHECKING:
    from torch import nn

    from torch_dag_core.cli.model_choice import ModelChoice
    from torch_dag_pruning.analysis.analysis import Analysis


@click.command(epilog=example("torch-dag inspect timm:resnet18 --top 5"))
@takes_model
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many orbits are shown.")
@answers
def inspect(choice: ModelChoice, top: int) -> None:
    """Show what can be pruned of MODEL: orbits with their kind and cost, and what locks the rest, with advice.

    An orbit is a set of channels, heads or groups that go together, wherever they occur.
    """
    from torch_dag_pruning.analysis.analysis import analyze

    with console().status(f"analysing {choice.reference}"):
        model = choice.model()
        graph = choice.graph(model)
        with step("analysing"):
            analysis = analyze(graph)
            orbits, locks = orbit_rows(analysis), lock_rows(analysis, model)
    now = float(analysis.cost())
    say(
        f"{choice.reference}: {count(now)} FLOPs ({count(now / 2)} MACs) and {count(analysis.parameters_count())} "
        f"parameters; {analysis.removable_share:.2%} of the FLOPs can be removed"
    )
    if orbits:
        say(_orbit_table(sorted(orbits, key=lambda row: -row["flops"])[:top]))
    if len(orbits) > top:
        say(f"and {len(orbits) - top} smaller orbits; --top {len(orbits)} shows all")
    for row in locks:
        say(_lock_text(row))
    answer(
        model=choice.reference, flops=now, macs=now / 2, parameters=analysis.parameters_count(),
        removable_share=analysis.removable_share, orbits=orbits, locks=locks,
    )  # fmt: skip


def orbit_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Return key, kind, number of slots, minimum, places and FLOPs of each orbit, in the order of the graph.

    The kind is a name that ``kinds=`` of a choice takes. The FLOPs are those that are saved where the orbit alone is
    reduced to its minimum, but at least one slot.
    """
    from torch_dag_pruning.plan.kinds import orbit_kinds

    kinds, now = orbit_kinds(analysis), float(analysis.cost())
    saved = {o.key: now - float(analysis.cost({o.atom.id: max(1, o.minimum)})) for o in analysis.orbits}
    return [
        {
            "key": orbit.key,
            "kind": kinds[orbit.key],
            "slots": orbit.n,
            "minimum": orbit.minimum,
            "places": len(orbit.places),
            "flops": saved[orbit.key],
            "share": saved[orbit.key] / (now or 1.0),
        }
        for orbit in analysis.orbits
    ]


def lock_rows(analysis: Analysis, model: nn.Module) -> list[dict[str, Any]]:
    """Return what locks FLOPs, most first: the vertex, its source line, the reason, and what can be done."""
    from torch_dag_pruning.cli.advice import advice
    from torch_dag_pruning.cli.source_lines import source_line

    now = float(analysis.cost())
    return [
        {
            "vertex": cause.vertex,
            "op": cause.op,
            "reason": cause.reason,
            "source": source_line(model, cause.vertex),
            "flops": float(flops),
            "share": float(flops) / now,
            "advice": advice(cause),
        }
        for cause, flops in sorted(analysis.locked.items(), key=lambda item: -float(item[1]))
    ]


def _orbit_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("orbit", "kind")
    for column in ("slots", "places", "FLOPs", "share"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = (row["key"], row["kind"], str(row["slots"]), str(row["places"]), count(row["flops"]))
        table.add_row(*map(Text, (*cells, f"{row['share']:.2%}")))
    return table


def _lock_text(row: dict[str, Any]) -> str:
    source = f" at {row['source']}" if row["source"] else ""
    text = f"locked {row['share']:7.2%}  {row['vertex']} ({row['op']}): {row['reason']}{source}"
    return f"{text}\n{'':16}{row['advice']}" if row["advice"] else text
