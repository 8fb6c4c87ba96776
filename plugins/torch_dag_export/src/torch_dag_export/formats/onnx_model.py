"""ONNX models, made from the `torch.export` program and run by ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_dag_export.errors import ExportError, first_line
from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.formats.attention import with_simple_attention
from torch_dag_export.subject import ExportSubject

_LARGEST = 1_900_000_000
"""Bytes of weights that fit into one file: protobuf takes less than 2 GiB with the structure."""


def onnx_bytes(subject: ExportSubject) -> bytes:
    """Return the ONNX model of a graph, weights included.

    Raises:
        ExportError: the weights are too large, or PyTorch cannot translate the program.
    """
    tensors = (*subject.dag.parameters(), *subject.dag.buffers())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > _LARGEST:
        message = f"the graph has {size / 1e9:.1f} GB of weights, an ONNX file holds less than 2 GB; export to pt2"
        raise ExportError(message)
    try:
        made: Any = torch.onnx.export(
            with_simple_attention(subject.program), dynamo=True, verbose=False,
            input_names=subject.in_program_order(subject.input_names), output_names=subject.output_names,
        )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        message = f"the program cannot be written as ONNX: {first_line(error.__cause__ or error)}"
        raise ExportError(message) from error
    written: bytes = made.model_proto.SerializeToString()
    return written


def _write(subject: ExportSubject, files: Sequence[Path]) -> None:
    files[0].write_bytes(onnx_bytes(subject))


def _load(subject: ExportSubject, files: Sequence[Path]) -> Runtime:
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(files[0].read_bytes(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def call(*tensors: Tensor) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(names, subject.in_program_order(tensors), strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, given)]

    return call


ONNX = ExportFormat(
    name="onnx",
    suffix=".onnx",
    description="a model for ONNX Runtime and all that read ONNX",
    write=_write,
    load=_load,
    packages=("onnx", "onnxscript", "onnxruntime"),
    requirement="torch-dag-export[onnx]",
)
