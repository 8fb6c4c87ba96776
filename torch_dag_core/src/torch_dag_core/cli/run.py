"""The command ``torch-dag run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from torch_dag_core.algorithms.algorithm import Algorithm, AlgorithmSpec, find_algorithm
from torch_dag_core.cli.model_choice import ModelChoice, takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_core.cli.setting_values import read_settings
from torch_dag_core.errors import SettingsError


@click.command()
@click.argument("algorithm")
@takes_model
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="One setting of the algorithm.")
@click.option("--analyze", "only_analyze", is_flag=True, help="Show what could go and stop.")
@click.option("-o", "--out", type=OutputPath(), help="Where to save the result (.safetensors).")
@may_overwrite
def run(
    *, algorithm: str, choice: ModelChoice, settings: Sequence[str], config: Sequence[str], only_analyze: bool,
    out: Path | None,
) -> None:  # fmt: skip
    """Run ALGORITHM on MODEL, a reference such as timm:resnet18 or a saved graph.

    `torch-dag algorithms ALGORITHM` shows its settings, which follow --config or stand at the end.
    """
    spec = find_algorithm(algorithm)
    if out is None and not only_analyze:
        click.echo("nothing will be saved; --out saves the result")
    chosen = spec.configure(**read_settings(spec, [*config, *settings]))
    started = spec.start(choice.graph(), chosen)
    click.echo(str(started.analyze()))
    if not only_analyze:
        _finish(spec, started, out)


def _finish(spec: AlgorithmSpec, algorithm: Algorithm, out: Path | None) -> None:
    """Carry out an algorithm that learns nothing, and save what comes of it."""
    if spec.trains and spec.status != "stub":
        _refuse_training(spec)
    algorithm.prepare()
    proportion = float(algorithm.losses(0).proportion)
    result = algorithm.finalize()
    click.echo(f"{spec.name}: {proportion:.2%} of the cost is left")
    if out is not None:
        result.save(out)
        click.echo(f"saved {out}")


def _refuse_training(spec: AlgorithmSpec) -> None:
    message = (
        f"{spec.name} learns what to remove, which takes data and a training loop: start it in Python, train what "
        "prepare() returns with losses(step) added, and call finalize(); --analyze shows what could go"
    )
    raise SettingsError(message)
