"""Tensors with a JSON document in one safetensors file, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torch_dag_core.atomic_files import replacing
from torch_dag_pruning.errors import CalibrationError

_KEY = "torch_dag_statistics"
_FORMAT = 1


def write_tensors(target: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a document so that a crash leaves the old file or the new one.

    Raises:
        OSError: the file cannot be written, or the path is something other than a file.
    """
    text = json.dumps({"format": _FORMAT, **document}, sort_keys=True)
    with replacing(target) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, {_KEY: text})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the document of a file that `write_tensors` wrote.

    Raises:
        CalibrationError: the file is none, or one of a newer format.
        FileNotFoundError: there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        message = f"{path} is no file of statistics: {error}"
        raise CalibrationError(message) from error
    document = {} if text is None else json.loads(text)
    if document.get("format") != _FORMAT:
        message = f"{path} holds no statistics that this version reads (format {document.get('format')})"
        raise CalibrationError(message)
    return tensors, document
