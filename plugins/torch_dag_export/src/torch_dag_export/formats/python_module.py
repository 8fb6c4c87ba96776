"""A readable module in one Python file, which needs torch and safetensors alone, with its weights beside it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.python.running import run_in_process
from torch_dag_export.python.source import python_file
from torch_dag_export.subject import ExportSubject

_WEIGHTS = ".weights.safetensors"
_MODULE = "_torch_dag_exported"


def _write(subject: ExportSubject, files: Sequence[Path]) -> None:
    made = python_file(subject.dag, _WEIGHTS)
    files[0].write_text(made.text, encoding="utf-8")
    tensors = {name: tensor.contiguous().clone() for name, tensor in made.tensors.items()}
    save_file(tensors, files[1], metadata={"format": "pt"})


def _load(subject: ExportSubject, files: Sequence[Path]) -> Runtime:
    loader = importlib.machinery.SourceFileLoader(_MODULE, str(files[0]))
    spec = importlib.util.spec_from_loader(_MODULE, loader, origin=str(files[0]))
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    module.__file__ = str(files[0])
    sys.modules[_MODULE] = module  # dataclasses look their module up
    try:
        loader.exec_module(module)
    finally:
        del sys.modules[_MODULE]
    model = module.load(files[1])

    def call(*tensors: Tensor) -> Any:
        return model(*subject.arguments(tensors))

    return call


PYTHON = ExportFormat(
    name="python",
    suffix=".py",
    description="a readable nn.Module for torch and safetensors alone",
    write=_write,
    load=_load,
    run=run_in_process,
    companions=(_WEIGHTS,),
)
