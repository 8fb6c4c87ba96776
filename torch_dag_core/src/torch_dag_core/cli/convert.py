"""The commands ``torch-dag convert`` and ``torch-dag show``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.atomic_files import write_text
from torch_dag_core.cli.answers import answer, answers, say, step
from torch_dag_core.cli.console import console
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_core.errors import PluginLoadError
from torch_dag_core.pictures import graph_format
from torch_dag_core.plugins.graph_formats import GraphFormat

if TYPE_CHECKING:
    from torch_dag_core.cli.model_choice import ModelChoice
    from torch_dag_core.graph.dag import DagModule


@click.command(epilog=example("torch-dag convert timm:resnet18 --out resnet18.safetensors"))
@takes_model
@click.option("-o", "--out", type=OutputPath(), required=True, help="Where to save (.safetensors).")
@may_overwrite
@answers
def convert(choice: ModelChoice, out: Path) -> None:
    """Convert MODEL into a graph and save it in one file that loads without its source."""
    from torch_dag_core.cli.saved_file import loading_lines, needed_distributions
    from torch_dag_core.conversion.report import conversion_report

    with console().status(f"converting {choice.reference}"):
        dag = choice.graph()
    say(conversion_report(dag))
    dag.save(out)
    say(loading_lines(out, dag))
    say(f"next: `torch-dag flops {out}` shows its cost, `torch-dag algorithms` what can be run on it")
    answer(
        model=choice.reference, file=out, file_bytes=out.stat().st_size, needs=needed_distributions(dag), **facts(dag)
    )  # fmt: skip


@click.command(epilog=example("torch-dag show timm:resnet18 --summary"))
@takes_model
@click.option("--summary", is_flag=True, help="Counts instead of every vertex.")
@click.option("-o", "--out", type=OutputPath(), help="Write a picture; its ending, such as .html, says which kind.")
@click.option("--before", metavar="MODEL", help="With --out: a model to compare with, such as the one that was pruned.")
@click.option("--depth", type=click.IntRange(min=1), help="With --out: draw modules of this level as one box each.")
@may_overwrite
@answers
def show(
    choice: ModelChoice,
    summary: bool,  # noqa: FBT001
    out: Path | None,
    before: str | None,
    depth: int | None,
) -> None:
    """Print the graph of MODEL, one line a vertex, or write a picture of it.

    Plugins draw the pictures: `torch-dag show MODEL --out model.html` needs torch-dag-show.
    """
    if out is None:
        _refuse_without_out(before, depth)
        dag = choice.graph()
        say(dag.summary() if summary else str(dag))
        answer(model=choice.reference, **facts(dag), graph=_vertices(dag))
        return
    from torch_dag_core.cli.model_choice import ModelChoice

    fmt = _graph_format(out, depth)
    dag, earlier = choice.graph(), None if before is None else ModelChoice(before).graph()
    with step(f"drawing {out}"):
        write_text(out, fmt.drawn(dag, earlier, depth))
    say(f"wrote {out}")
    answer(model=choice.reference, before=before, file=out, **facts(dag))


def _vertices(dag: DagModule) -> list[dict[str, Any]]:
    return [
        {
            "name": vertex.name,
            "op": type(vertex.module).__name__,
            "constants": vertex.module.extra_repr(),
            "inputs": [operand.name for operand in vertex.predecessors],
        }
        for vertex in dag.inner_vertices
    ]


def _refuse_without_out(before: str | None, depth: int | None) -> None:
    if before is not None:
        message = "--before needs --out, since only pictures compare two graphs"
        raise click.UsageError(message)
    if depth is not None:
        message = "--depth needs --out, since only pictures fold modules"
        raise click.UsageError(message)


def _graph_format(out: Path, depth: int | None) -> GraphFormat:
    """Return the format that a file's ending names, before any model is converted for it."""
    try:
        fmt = graph_format(out.suffix)
    except PluginLoadError as error:
        message = f"{str(out)!r}: {error}"
        raise click.UsageError(message) from error
    if depth is not None and not fmt.takes_depth:
        message = f"{str(out)!r}: a {fmt.suffix} file cannot be drawn to a depth; leave --depth out"
        raise click.UsageError(message)
    return fmt


def facts(dag: DagModule) -> dict[str, Any]:
    """Return what programs want to know of a converted graph."""
    ops = Counter(type(vertex.module).__name__ for vertex in dag.inner_vertices)
    return {
        "vertices": len(dag.inner_vertices),
        "ops": dict(ops.most_common()),
        "parameters": sum(parameter.numel() for parameter in dag.parameters()),
        "inputs": [{"shape": spec.shape, "dtype": spec.dtype} for spec in dag.input_spec.tensors],
        "notes": dag.input_spec.notes,
    }
