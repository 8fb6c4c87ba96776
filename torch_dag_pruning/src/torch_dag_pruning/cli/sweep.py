"""The commands ``torch-dag sweep`` and ``torch-dag sweep-plot``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.cli.answers import answer, answers, note, say
from torch_dag_core.cli.coverage.command import Shard
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite, may_resume
from torch_dag_pruning.cli.sensitivity import shares

if TYPE_CHECKING:
    from torch_dag_core.cli.model_choice import ModelChoice

_SWEPT = ("keep_flops", "criterion", "recover", "plan", "save_plan")


def _names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@click.command("sweep", epilog=example("torch-dag sweep timm:resnet18 --calibrate images --out rows.jsonl"))
@takes_model
@click.option("--targets", default="0.75,0.5,0.35", show_default=True, callback=shares, metavar="SHARES",
              help="Which shares of the FLOPs stay.")  # fmt: skip
@click.option("--criteria", default="l2", show_default=True, callback=_names, metavar="NAMES",
              help="How slots are scored.")  # fmt: skip
@click.option("--recover", default="none,least_squares", show_default=True, callback=_names, metavar="NAMES",
              help="How weights are repaired.")  # fmt: skip
@click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Another setting of `torch-dag prune`.")
@click.option("--calibrate", required=True, metavar="DATA",
              help="Data to run on: a folder of images, a .safetensors file, or package.module:callable.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=2), default=512, show_default=True,
              help="How many samples of DATA are read at most; a quarter of them is held out.")  # fmt: skip
@click.option("--shard", type=Shard(), default="1/1", help="Every n-th case, beginning with the i-th.")
@click.option("-o", "--out", type=OutputPath(), required=True, help="The rows, as JSON lines; one file for each job.")
@may_resume
@may_overwrite
@answers
def sweep(*, choice: ModelChoice, out: Path, resume: bool, shard: tuple[int, int], **options: Any) -> None:
    """Prune MODEL once for each target, criterion and repair, and compare the outputs with those of MODEL.

    Nothing is saved but the rows. An interrupted sweep goes on with --resume. `torch-dag sweep-plot` joins the files of
    several jobs.
    """
    from torch_dag_core.cli.calibration import Amount, read_calibration
    from torch_dag_core.cli.coverage.record import installed_versions
    from torch_dag_pruning.sweep import cases
    from torch_dag_pruning.sweep import sweep as run
    from torch_dag_pruning.sweep_file import SweepFile, table

    settings = _settings(options["config"])
    of = {
        "model": choice.reference, "calibrate": options["calibrate"], "samples": options["samples"],
        "seed": choice.seed, "arguments": [*choice.arguments, choice.pretrained, str(choice.weights)],
        "inputs": str(choice.example),
        "config": list(options["config"]), "versions": installed_versions("torch-dag-pruning"),
    }  # fmt: skip
    file = SweepFile.opened(out, of, resume=resume)
    first, every = shard
    chosen = cases(options["targets"], options["criteria"], options["recover"])[first - 1 :: every]
    left = [case for case in chosen if case.key not in file.rows]
    note(f"{len(left)} cases to prune, {len(file.rows)} pruned before")
    model = choice.model()
    dag = choice.graph(model)
    data = read_calibration(options["calibrate"], model, choice.reference, dag, Amount(options["samples"]))
    for row in run(dag, data, left, **settings):
        file.add(row)
        note(f"{len(file.rows)}: {row.case.key} {row.failure or f'{row.error:.2%} error'}")
    rows = list(file.rows.values())
    say(table(rows))
    answer(file=out, rows=[asdict(row) for row in rows])


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    from torch_dag_core.cli.setting_values import read_settings
    from torch_dag_pruning.one_shot_spec import SPEC

    settings = read_settings(SPEC, list(texts))
    for name in _SWEPT:
        if name in settings:
            message = f"--config cannot set {name}, which the sweep decides or writes"
            raise click.UsageError(message)
    return settings


@click.command("sweep-plot", epilog=example("torch-dag sweep-plot rows.jsonl --out sweep.svg"))
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", type=OutputPath(), required=True, help="The picture: .svg, .png or .pdf.")
@may_overwrite
@answers
def sweep_plot(*, files: Sequence[Path], out: Path) -> None:
    """Draw error against FLOPs of the rows that `torch-dag sweep` wrote into FILES, and print their table.

    Needs matplotlib: `pip install torch-dag-pruning[plot]`.
    """
    from torch_dag_pruning.cli.sweep_plot import plot
    from torch_dag_pruning.sweep_file import SweepFile, joined, table

    rows = joined([SweepFile.read(path) for path in files])
    plot(rows, out)
    say(table(rows))
    say(f"wrote {out}")
    answer(file=out, rows=[asdict(row) for row in rows])
