"""Inputs that the user named for a model: a size, shapes with names and types, or a file of tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
import torch
from torch import Tensor

from torch_dag_core.analysis.random_inputs import random_input
from torch_dag_core.errors import InputError

_SHAPE = re.compile(r"\d+(?:x\d+)*")


@dataclass(frozen=True)
class InputShape:
    """One input to make up.

    Attributes:
        name: The parameter of ``forward``; empty for one by position.
        shape: Its size, with the batch.
        dtype: Its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[NAME:]SHAPE[:DTYPE]``.

        >>> InputShape.parse("ids:2x16:int64")
        InputShape(name='ids', shape=(2, 16), dtype=torch.int64)

        Raises:
            ValueError: the text is not of this form.
        """
        name, *rest = text.split(":")
        if _SHAPE.fullmatch(name):
            name, rest = "", [name, *rest]
        if not 1 <= len(rest) <= 2 or not _SHAPE.fullmatch(rest[0]) or not (not name or name.isidentifier()):
            raise ValueError(text)
        dtype = getattr(torch, rest[1], None) if len(rest) == 2 else torch.float32
        if not isinstance(dtype, torch.dtype):
            raise ValueError(text)  # noqa: TRY004 - a wrong text, not a wrong type
        return cls(name, tuple(map(int, rest[0].split("x"))), dtype)


@dataclass(frozen=True)
class ExampleChoice:
    """What the user said about inputs; at most one of the three is given.

    Attributes:
        size: Of one sample of the only input.
        shapes: Of the inputs, with the batch.
        file: A safetensors file with a tensor for each input, by the names of the parameters.
    """

    size: tuple[int, ...] | None = None
    shapes: tuple[InputShape, ...] = ()
    file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse two ways at once.

        Raises:
            click.UsageError: more than one is given.
        """
        given = {"--size": self.size, "--input": self.shapes, "--inputs": self.file}
        names = [name for name, value in given.items() if value]
        if len(names) > 1:
            message = f"{' and '.join(names)} both say what the inputs are; give one of them"
            raise click.UsageError(message)

    def inputs(self) -> Any:
        """Return example inputs, as a pair of arguments and keywords; None where nothing was said.

        Raises:
            InputError: the file cannot be read.
        """
        if self.size is not None:
            return (torch.randn(2, *self.size),), {}
        if self.file is not None:
            return _of_file(self.file)
        if not self.shapes:
            return None
        tensors = [(each.name, random_input(each.shape, each.dtype)) for each in self.shapes]
        return tuple(t for name, t in tensors if not name), {name: t for name, t in tensors if name}


def _of_file(path: Path) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        message = f"there is no file {str(path)!r} with inputs"
        raise InputError(message)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        message = f"{str(path)!r} is no safetensors file: {error}"
        raise InputError(message) from error
    return (), tensors
