"""The command ``torch-dag share``: a model in a folder for the Hub, or uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.cli.answers import answer, answers, say, step
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_hub.layout import CONFIG, MODEL

if TYPE_CHECKING:
    from torch_dag_core.cli.model_choice import ModelChoice


class OutputFolder(click.Path):
    """A folder that a command writes a graph to; one that holds a graph already is refused without ``--force``."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the folder if the files can be written to it."""
        folder = Path(value)
        if folder.exists():
            for name in (MODEL, CONFIG):
                OutputPath().convert(folder / name, param, ctx)
        return folder


@click.command("share", epilog=example("torch-dag share timm:resnet18 --out resnet18-graph"))
@takes_model
@click.option("-o", "--out", type=OutputFolder(), help="Write the files to this folder.")
@click.option("--to", "repo_id", metavar="USER/NAME", help="Upload to this repository of the Hugging Face Hub.")
@click.option("--private", is_flag=True, help="With --to: make the repository private if it is created.")
@click.option("--preprocessing", metavar="MODEL",
              help="A model of timm whose preprocessing is noted; MODEL itself by default.")  # fmt: skip
@click.option("--base-model", metavar="USER/NAME", help="The repository of the model that this one was made from.")
@click.option("--license", "license_", metavar="NAME", help="The licence of the weights, as the Hub calls it.")
@may_overwrite
@answers
def share(
    *, choice: ModelChoice, out: Path | None, repo_id: str | None, private: bool, preprocessing: str | None,
    **metadata: str | None,
) -> None:  # fmt: skip
    """Write MODEL with config.json and a model card to a folder, or upload it to the Hugging Face Hub.

    The card holds measured values alone: cost, proof and repair of a pruned model. What you write into it stays.
    """
    from torch_dag_hub.folder import save_pretrained
    from torch_dag_hub.uploading import push_to_hub

    if (out is None) == (repo_id is None):
        message = "give either a folder with --out, or a repository with --to"
        raise click.UsageError(message)
    model = choice.model()
    dag = choice.graph(model)
    settings = {"pretrained_cfg": _preprocessing(model, preprocessing), "metadata": _given(metadata)}
    with step(f"sharing {choice.reference}"):
        if out is not None:
            place = str(save_pretrained(dag, out, **settings))
        else:
            place = push_to_hub(dag, str(repo_id), private=private or None, **settings)
    say(f"wrote {place}")
    answer(model=choice.reference, folder=out, repository=repo_id, written=place)


def _preprocessing(model: Any, reference: str | None) -> Any:
    """Return how a model of timm prepares its inputs; None for other models."""
    from torch_dag_core.cli.model_choice import ModelChoice

    return getattr(model if reference is None else ModelChoice(reference).model(), "pretrained_cfg", None)


def _given(metadata: dict[str, str | None]) -> dict[str, str]:
    return {name.removesuffix("_"): value for name, value in metadata.items() if value is not None}
