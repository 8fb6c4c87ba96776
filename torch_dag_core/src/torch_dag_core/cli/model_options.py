"""The argument MODEL and its options, which all commands that take a model share; importing this imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from torch_dag_core.cli.param_type import ParamType

if TYPE_CHECKING:
    from torch_dag_core.cli.example_choice import InputShape

F = TypeVar("F", bound=Callable[..., Any])

DTYPES = ("float32", "float64", "float16", "bfloat16")
"""What the weights of a model can be cast to."""
MODES = ("both", "eval")
"""The modes that a model can be converted in."""


class InputType(ParamType):
    """An input as ``[NAME:]SHAPE[:DTYPE]``."""

    name = "[NAME:]SHAPE[:DTYPE]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> InputShape:
        """Return the shape."""
        from torch_dag_core.cli.example_choice import InputShape

        if isinstance(value, InputShape):
            return value
        try:
            return InputShape.parse(str(value))
        except ValueError:
            self.fail(f"{value!r} is no input; write [NAME:]SHAPE[:DTYPE], such as 2x3x224x224 or ids:2x16:int64",
                      param, ctx)  # fmt: skip


class SizeType(ParamType):
    """The size of one sample, as ``C,H,W``."""

    name = "C,H,W"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the size."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no size; write positive integers with commas, such as 3,224,224", param, ctx)
        return tuple(map(int, parts))


_OPTIONS: Sequence[Callable[[F], F]] = (
    click.argument("reference", metavar="MODEL", is_eager=True),  # known before outputs are checked against it
    click.option("--arg", "arguments", multiple=True, metavar="[KEY=]VALUE", help="Argument of the model's callable."),
    click.option("--pretrained", is_flag=True, help="Ask the model's source for its trained weights."),
    click.option(
        "--weights", type=click.Path(path_type=Path), is_eager=True, help="Weights: safetensors, or a state dict."
    ),
    click.option("--size", type=SizeType(), metavar="C,H,W", help="Size of an example input, without the batch."),
    click.option("--input", "shapes", type=InputType(), multiple=True, metavar="[NAME:]SHAPE[:DTYPE]",
                 help="An example input, with the batch: 2x3x224x224, or ids:2x16:int64. Repeat it for several."),
    click.option("--inputs", "file", type=click.Path(path_type=Path), is_eager=True, metavar="FILE",
                 help="Example inputs by name (.safetensors)."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of random weights and inputs."),
    click.option("--device", default="cpu", show_default=True, help="Where the model runs, such as cuda."),
    click.option("--dtype", type=click.Choice(DTYPES), help="Precision of model and inputs; its own by default."),
    click.option("--modes", type=click.Choice(MODES),
                 help="Convert evaluation alone, where calls in training depend on data; both by default."),
)  # fmt: skip


def takes_model(command: F) -> F:
    """Add the argument MODEL and its options to a command, which receives them as a `ModelChoice` named ``choice``."""

    @functools.wraps(command)
    def with_choice(reference: str, arguments: tuple[str, ...], **rest: Any) -> Any:
        from torch_dag_core.cli.example_choice import ExampleChoice
        from torch_dag_core.cli.model_choice import ModelChoice

        example = ExampleChoice(*(rest.pop(name) for name in ("size", "shapes", "file")))
        own = {name: rest.pop(name) for name in ("weights", "pretrained", "seed", "device", "dtype", "modes")}
        return command(choice=ModelChoice(reference, arguments, example=example, **own), **rest)

    for option in reversed(_OPTIONS):
        with_choice = option(with_choice)
    return with_choice  # type: ignore[return-value]
