"""The command ``torch-dag run``: one subcommand for each installed algorithm, with its settings as options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, algorithms, find_algorithm
from torch_dag_core.cli.answers import answers
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_core.cli.setting_values import Decorator, check_outputs, option_texts, read_settings, setting_options

if TYPE_CHECKING:
    from torch_dag_core.cli.model_choice import ModelChoice


class AlgorithmGroup(click.Group):
    """A group whose commands are the installed algorithms, asked for when one of them, or the list, is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of the algorithms."""
        del ctx
        return list(algorithms())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of one algorithm.

        Raises:
            UnknownAlgorithmError: there is none of that name.
        """
        del ctx
        return algorithm_command(find_algorithm(cmd_name))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write an example with the first algorithm that is installed."""
        self.epilog = example(f"torch-dag run {next(iter(self.list_commands(ctx)), 'ALGORITHM')} --help")
        super().format_epilog(ctx, formatter)


@click.command(cls=AlgorithmGroup, subcommand_metavar="ALGORITHM MODEL [SETTINGS]...")
def run() -> None:
    """Run ALGORITHM on MODEL, a reference such as timm:resnet18 or a saved graph.

    `torch-dag run ALGORITHM --help` shows its settings. Each is an option, and may also be written KEY=VALUE.
    """


def algorithm_command(
    spec: AlgorithmSpec,
    *,
    name: str | None = None,
    text: str | None = None,
    needs_out: bool = False,
    epilog: str | None = None,
) -> click.Command:
    """Return the command that runs an algorithm: its settings are options.

    Args:
        spec: The algorithm.
        name: Of the command; that of the algorithm by default.
        text: Help of the command; the summary of the algorithm by default.
        needs_out: Whether ``--out`` must be given.
        epilog: End of the help, such as an example.
    """

    def callback(
        *, choice: ModelChoice, pairs: Sequence[str], config: Sequence[str], only_analyze: bool, out: Path | None,
        **given: Any,
    ) -> None:  # fmt: skip
        from torch_dag_core.cli.execution import Run, execute

        data = {name: given.pop(name) for name in ("calibrate", "samples")}
        settings = read_settings(spec, [*config, *option_texts(given), *pairs])
        check_outputs(spec, settings)
        execute(Run(spec, choice, settings, out, only_analyze=only_analyze, **data))

    options: list[Decorator] = [
        click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]..."),
        *setting_options(spec),
        click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="One setting of the algorithm."),
        click.option("--calibrate", metavar="DATA",
                     help="Data to look at: a folder of images, a .safetensors file, or package.module:callable."),
        click.option("--samples", type=click.IntRange(min=1), default=512, show_default=True,
                     help="How many samples of DATA are read at most."),
        click.option("--analyze", "only_analyze", is_flag=True, help="Show what could go and stop."),
        click.option("-o", "--out", type=OutputPath(), required=needs_out,
                     help="Where to save the result (.safetensors)."),
        may_overwrite,
        answers,
    ]  # fmt: skip
    for option in reversed(options):
        callback = option(callback)
    return click.command(name or spec.name, help=text or spec.summary, epilog=epilog)(takes_model(callback))
