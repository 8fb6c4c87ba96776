"""Models of LiteRT (formerly TensorFlow Lite) for phones and microcontrollers, run by its interpreter."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_export.checking import tensors_in
from torch_dag_export.errors import ExportError, first_line
from torch_dag_export.format import ExportFormat, Runtime
from torch_dag_export.formats.attention import with_simple_attention
from torch_dag_export.subject import ExportSubject


class _Named(nn.Module):
    """The program with its inputs and outputs by name, which a LiteRT model keeps."""

    def __init__(self, subject: ExportSubject) -> None:
        super().__init__()
        self.program = with_simple_attention(subject.program).module()
        self._subject = subject
        self.training = False  # of this module alone: programs refuse eval()

    def forward(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return every tensor of the result."""
        result = self.program(*self._subject.arguments(list(tensors.values())))
        return dict(zip(self._subject.output_names, tensors_in(result), strict=True))


def _write(subject: ExportSubject, files: Sequence[Path]) -> None:
    converter: Any = importlib.import_module("litert_torch")
    given = dict(zip(subject.input_names, subject.tensors, strict=True))
    converter.config.show_progress = False  # it would be printed among the answers
    module = _Named(subject)
    try:
        model = converter.convert(module, sample_kwargs=given)
    except Exception as error:
        message = f"LiteRT cannot take the program: {type(error).__name__}: {first_line(error)}"
        raise ExportError(message) from error
    files[0].write_bytes(model.model_content())


def _load(subject: ExportSubject, files: Sequence[Path]) -> Runtime:
    interpreting: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = interpreting.Interpreter(model_content=files[0].read_bytes(), num_threads=torch.get_num_threads())
    signature = interpreter.get_signature_runner()
    taken = signature.get_input_details()

    def call(*tensors: Tensor) -> list[Tensor]:
        given = {
            name: tensor.numpy().astype(taken[name]["dtype"])
            for name, tensor in zip(subject.input_names, tensors, strict=True)
        }
        results = signature(**given)
        return [torch.from_numpy(results[name]) for name in subject.output_names]

    return call


LITERT = ExportFormat(
    name="litert",
    suffix=".tflite",
    description="a model for LiteRT on phones and microcontrollers",
    write=_write,
    load=_load,
    free_batch=False,
    packages=("litert_torch", "ai_edge_litert"),
    requirement="torch-dag-export[litert]",
)
