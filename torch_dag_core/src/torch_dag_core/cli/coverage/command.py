"""The commands ``torch-dag coverage`` and ``torch-dag coverage-table``."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.cli.answers import answer, answers, note, say
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.output_path import OutputPath, may_overwrite, may_resume
from torch_dag_core.cli.param_type import ParamType

if TYPE_CHECKING:
    from torch_dag_core.cli.coverage.library import Listed
    from torch_dag_core.cli.coverage.processes import Processes
    from torch_dag_core.cli.coverage.record import CoverageFile, Header


class Shard(ParamType):
    """A part of the models, as ``i/n``."""

    name = "i/n"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (i, n)."""
        if isinstance(value, tuple):
            return value
        first, _, parts = str(value).partition("/")
        if not (first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
            self.fail(f"{value!r} is no part of the models; 2/4 is the second of four", param, ctx)
        return int(first), int(parts)


@click.command(epilog=example("torch-dag coverage timm --filter resnet10t --out rows.jsonl"))
@click.argument("source")
@click.option("--filter", "filters", multiple=True, metavar="GLOB", help="Only models whose names match; repeatable.")
@click.option("--max-parameters", type=click.FloatRange(min=0), metavar="M", help="Leave out models above M million.")
@click.option("--shard", type=Shard(), default="1/1", help="Every n-th model, beginning with the i-th.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Models examined at once.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds that one model may take.",
)
@click.option(
    "--memory-limit",
    type=click.FloatRange(min=1),
    metavar="GB",
    help="Memory that one model may take (Linux); larger ones are examined without weights.",
)
@click.option("--structure-only", is_flag=True, help="Give no model weights: what they compute is not compared.")
@click.option("-o", "--out", type=OutputPath(), required=True, help="The rows, as JSON lines.")
@may_resume
@may_overwrite
@answers
def coverage(*, source: str, out: Path, resume: bool, jobs: int, **options: Any) -> None:
    """Examine every model of SOURCE, each in its own process.

    SOURCE is a library that a plugin lists (timm, torchvision, transformers), or a .toml file with a table [[model]]
    for each model: name, reference, and if need be distribution, arguments and inputs as on the command line.

    Each is converted, compared with its source in both modes, saved, loaded where its source cannot be imported, and
    examined by whatever the installed plugins add: torch-dag-pruning tells what can be removed and what is in the way,
    and proves a random removal. `torch-dag coverage-table` makes a page of the rows.

    With --structure-only, models are built without memory: each is converted, its structure saved and loaded, and what
    is removed at random is proved by shapes, FLOPs and parameters. That takes seconds for a model of any size.
    """
    seconds, gigabytes, most = (options[name] for name in ("time_limit", "memory_limit", "max_parameters"))
    if gigabytes is not None and sys.platform != "linux":
        message = "limits of memory exist on Linux alone; leave --memory-limit out"
        raise click.UsageError(message)
    from torch_dag_core.cli.coverage.library import find_library
    from torch_dag_core.cli.coverage.processes import Processes
    from torch_dag_core.cli.coverage.record import Header
    from torch_dag_core.cli.coverage.survey import Choice, Survey, limits_of

    library = find_library(source)
    choice = Choice(options["filters"], math.inf if most is None else most * 1e6, options["shard"])
    file = _opened(out, Header.here(library.name, library.distributions, options), resume=resume)
    processes, models = Processes(limits_of(seconds, gigabytes), library.packages), library.models()
    try:
        _measure(file, {name: model for name, model in models.items() if choice.matches(name)}, processes)
        names = [name for name in choice.select(file.parameters) if name in models and name not in file.rows]
        note(f"{len(names)} models of {source} to examine, {len(file.rows)} examined before")
        Survey(file, models, processes, note, structure_only=options["structure_only"]).run(names, jobs)
    finally:
        processes.stop()
    failures = {name: row["failures"] for name, row in file.rows.items() if row["failures"]}
    say(f"{len(file.rows)} models in {out}, {len(failures)} of them with failures")
    answer(source=source, file=out, models=len(file.rows), failures=failures)


def _opened(path: Path, header: Header, *, resume: bool) -> CoverageFile:
    """Return the file of an earlier run that goes on, or a new one."""
    from torch_dag_core.cli.coverage.record import CoverageFile

    if resume and path.exists():
        before = CoverageFile.read(path)
        changes = before.header.changes(header)
        if not changes:
            return before
        note(f"starting anew, because {'; '.join(changes)} since {path} was begun")
    return CoverageFile(path, header)


def _measure(file: CoverageFile, models: Mapping[str, Listed], processes: Processes) -> None:
    """Count the parameters of models that the file does not know, and remember them in it."""
    from torch_dag_core.cli.coverage.survey import sizes_of

    missing = sorted(models.keys() - file.parameters.keys())
    if missing:
        note(f"counting the parameters of {len(missing)} models")
    for name, count in sizes_of({name: models[name] for name in missing}, processes):
        file.parameters[name] = count
    file.write()


@click.command("coverage-table", epilog=example("torch-dag coverage-table rows.jsonl --out coverage.md"))
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", type=OutputPath(), required=True, help="The page, as Markdown.")
@click.option(
    "--beside",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Figures of another tool to show beside: columns model, converted, channels, blocks.",
)
@may_overwrite
@answers
def coverage_table(*, files: Sequence[Path], out: Path, beside: Path | None) -> None:
    """Make a page of the rows that `torch-dag coverage` wrote into FILES."""
    from torch_dag_core.atomic_files import write_text
    from torch_dag_core.cli.coverage.figures import Figures
    from torch_dag_core.cli.coverage.record import CoverageFile
    from torch_dag_core.cli.coverage.table import page

    surveys = [CoverageFile.read(path) for path in files]
    write_text(out, page(surveys, None if beside is None else Figures.read(beside)))
    say(f"wrote {out}")
    answer(files=files, file=out, models=sum(len(survey.rows) for survey in surveys))
