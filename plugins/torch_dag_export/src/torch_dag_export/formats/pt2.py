"""Programs of `torch.export`, which PyTorch runs without Python sources, in Python and in C++."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.subject import ExportSubject


def _write(subject: ExportSubject, files: Sequence[Path]) -> None:
    with files[0].open("wb") as file:
        torch.export.save(subject.program, file)


def _load(subject: ExportSubject, files: Sequence[Path]) -> Runtime:
    with files[0].open("rb") as file:
        module = torch.export.load(file).module()

    def call(*tensors: Tensor) -> Any:
        return module(*subject.arguments(tensors))

    return call


PT2 = ExportFormat(
    name="pt2",
    suffix=".pt2",
    description="a program for torch.export.load, AOTInductor and other compilers of PyTorch",
    write=_write,
    load=_load,
)
