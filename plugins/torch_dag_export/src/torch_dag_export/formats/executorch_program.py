"""Programs of ExecuTorch for phones and microcontrollers, with the operations of XNNPACK, run by its Python runtime."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from torch_dag_export.errors import ExportError, first_line
from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.subject import ExportSubject

_LARGEST_BATCH = 16
"""A program holds a plan of its memory, so that the sizes of what it takes are bounded."""


def _write(subject: ExportSubject, files: Sequence[Path]) -> None:
    lowering: Any = importlib.import_module("executorch.exir")
    xnnpack: Any = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    program = subject.exported(largest_batch=_LARGEST_BATCH)
    try:
        lowered = lowering.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        made = lowered.to_executorch()
    except Exception as error:
        message = f"ExecuTorch cannot take the program: {type(error).__name__}: {first_line(error)}"
        raise ExportError(message) from error
    files[0].write_bytes(made.buffer)


def _load(subject: ExportSubject, files: Sequence[Path]) -> Runtime:
    runtime: Any = importlib.import_module("executorch.runtime")
    method = runtime.Runtime.get().load_program(files[0]).load_method("forward")  # by its path: bytes may not go away

    def call(*tensors: Tensor) -> list[Tensor]:
        return list(method.execute(list(subject.in_program_order(tensors))))

    return call


EXECUTORCH = ExportFormat(
    name="executorch",
    suffix=".pte",
    description=f"a program for ExecuTorch on phones and microcontrollers, for batches up to {_LARGEST_BATCH}",
    write=_write,
    load=_load,
    packages=("executorch",),
    requirement="torch-dag-export[executorch]",
)
