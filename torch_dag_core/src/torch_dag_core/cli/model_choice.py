"""The argument MODEL and its options, which all commands that take a model share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from torch import Tensor, nn

from torch_dag_core.cli.references import load_model
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.graph.dag import DagModule

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ModelChoice:
    """The model that the user named, with the options that go with it."""

    reference: str
    arguments: tuple[str, ...] = ()
    weights: Path | None = None
    size: tuple[int, ...] | None = None

    def model(self) -> nn.Module:
        """Build or load the model, in evaluation mode."""
        return load_model(self.reference, self.arguments, self.weights).eval()

    def example(self) -> Tensor | None:
        """Return a random batch of two of the size in ``--size``; None without it, so that plugins offer an example."""
        return None if self.size is None else torch.randn(2, *self.size)

    def graph(self, model: nn.Module | None = None) -> DagModule:
        """Convert the model, or return it if it is a graph already."""
        model = self.model() if model is None else model
        return model if isinstance(model, DagModule) else build_from_unstructured_module(model, self.example())


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        message = f"--size takes integers with commas, such as 3,224,224, not {text!r}"
        raise ModelReferenceError(message) from error


_OPTIONS: Sequence[Callable[[F], F]] = (
    click.argument("reference", metavar="MODEL", is_eager=True),  # known before outputs are checked against it
    click.option("--arg", "arguments", multiple=True, metavar="[KEY=]VALUE", help="Argument of the model's callable."),
    click.option(
        "--weights", type=click.Path(path_type=Path), is_eager=True, help="Weights: safetensors, or a state dict."
    ),
    click.option("--size", callback=_size, metavar="C,H,W", help="Size of an example input, without the batch."),
)


def takes_model(command: F) -> F:
    """Add the argument MODEL and its options to a command, which receives them as a `ModelChoice` named ``choice``."""

    @functools.wraps(command)
    def with_choice(
        reference: str, arguments: tuple[str, ...], weights: Path | None, size: tuple[int, ...] | None, **rest: Any
    ) -> Any:
        return command(choice=ModelChoice(reference, arguments, weights, size), **rest)

    for option in reversed(_OPTIONS):
        with_choice = option(with_choice)
    return with_choice  # type: ignore[return-value]
