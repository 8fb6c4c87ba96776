"""Models of OpenVINO, read from ONNX and run on the CPU in the precision of their weights."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.formats.onnx_model import onnx_bytes
from torch_dag_export.subject import ExportSubject

_SUFFIX, _WEIGHTS = ".xml", ".bin"
_AS_WRITTEN = {"EXECUTION_MODE_HINT": "ACCURACY"}
"""Without it, processors that multiply bfloat16 fast do so."""


def _write(subject: ExportSubject, files: Sequence[Path]) -> None:
    openvino: Any = importlib.import_module("openvino")
    model = openvino.Core().read_model(onnx_bytes(subject))
    with tempfile.TemporaryDirectory(dir=files[0].parent) as folder:
        made = [Path(folder, "model").with_suffix(suffix) for suffix in (_SUFFIX, _WEIGHTS)]  # it insists on endings
        openvino.serialize(model, *map(str, made))
        for source, file in zip(made, files, strict=True):
            source.replace(file)


def _load(subject: ExportSubject, files: Sequence[Path]) -> Runtime:
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(*[file.read_bytes() for file in files]), "CPU", _AS_WRITTEN)

    def call(*tensors: Tensor) -> list[Tensor]:
        results = compiled([tensor.numpy() for tensor in subject.in_program_order(tensors)])
        return [torch.from_numpy(results[output].copy()) for output in compiled.outputs]

    return call


OPENVINO = ExportFormat(
    name="openvino",
    suffix=_SUFFIX,
    description="a model for OpenVINO, with its weights in .bin beside it",
    write=_write,
    load=_load,
    companions=(_WEIGHTS,),
    packages=("openvino", "onnx", "onnxscript"),
    requirement="torch-dag-export[openvino]",
)
