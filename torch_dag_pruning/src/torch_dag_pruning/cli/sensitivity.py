"""The command ``torch-dag sensitivity``: which orbits or blocks bear to be pruned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.cli.answers import answer, answers, say
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite

if TYPE_CHECKING:
    from torch_dag_core.cli.model_choice import ModelChoice


def shares(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    """Return the numbers of an option, which are written with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"takes numbers with commas, such as 0.75,0.5, not {text!r}"
        raise click.BadParameter(message) from error


@click.command("sensitivity", epilog=example("torch-dag sensitivity timm:resnet18 --calibrate images --shares 0.5"))
@takes_model
@click.option("--calibrate", required=True, metavar="DATA",
              help="Data to run on: a folder of images, a .safetensors file, or package.module:callable.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=64, show_default=True,
              help="How many samples of DATA are read at most.")  # fmt: skip
@click.option("--shares", default="0.75,0.5,0.25", show_default=True, callback=shares, metavar="SHARES",
              help="Which shares of the slots stay.")  # fmt: skip
@click.option("--by", type=click.Choice(["orbit", "block"]), default="orbit", show_default=True,
              help="What is pruned alone: every orbit, or all orbits of a block.")  # fmt: skip
@click.option("--criterion", default="l2", show_default=True, help="How slots are scored, by weights alone.")
@click.option("-o", "--out", type=OutputPath(), help="Where to save the table (.csv or .json).")
@may_overwrite
@answers
def sensitivity(*, choice: ModelChoice, calibrate: str, samples: int, out: Path | None, **settings: Any) -> None:
    """Prune every orbit of MODEL alone to some shares of its slots, and show how much the outputs change.

    Nothing is changed. What changes little can be pruned further, and what changes much can be held back with the
    options --ignore and --bounds of `torch-dag prune`.
    """
    from torch_dag_core.cli.calibration import Amount, read_calibration
    from torch_dag_pruning.analysis.analysis import analyze
    from torch_dag_pruning.sensitivity_scan import format_of
    from torch_dag_pruning.sensitivity_scan import sensitivity as scan

    if out is not None:
        format_of(out)
    model = choice.model()
    dag = choice.graph(model)
    data = read_calibration(calibrate, model, choice.reference, dag, Amount(samples))
    batches = [choice.placed(batch) for batch in data]
    table = scan(analyze(dag, choice.inputs()), batches, **settings)
    say(str(table))
    if out is not None:
        table.save(out)
    answer(model=choice.reference, file=out, **json.loads(table.to_json()))
