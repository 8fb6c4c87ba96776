"""Reading a file: checked as a whole before a model is handed out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from torch_dag_core.errors import GraphError, SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.serialization.catalogue import add_classes, chosen_registry
from torch_dag_core.serialization.node import Node, parse
from torch_dag_core.serialization.rebuild import rebuild
from torch_dag_core.serialization.shards import Shards, is_sharded
from torch_dag_core.serialization.walk import graphs, leaves, tensor_places
from torch_dag_core.serialization.weights import fill
from torch_dag_core.serialization.writer import METADATA_KEY

DEFAULT_NAME = "model.safetensors"
"""The name of a graph in a folder of its own."""


def load(
    path: str | Path, *, registry: Registry | None = None, atomic_modules: Sequence[type[nn.Module]] = (),
) -> DagModule:  # fmt: skip
    """Return the graph that `save` wrote, on the CPU, in the mode and with the gradients that it was saved with.

    Nothing in the file is executed or imported, no random numbers are drawn, and the weights are copied out of the
    mapped file once: the file may be replaced or removed afterwards.

    Args:
        path: The file, the path or index of a graph in several files, or a folder with a ``model.safetensors``.
        registry: The ops that may occur; those of the core and all plugins by default.
        atomic_modules: Classes of your own that the graph holds, saved through their ``config()``.

    Raises:
        SerializationError: the file is damaged, hostile, of a newer format, or uses ops that are not registered.
        OSError: the file cannot be opened.
    """
    allowed = chosen_registry(registry)
    add_classes(allowed, atomic_modules)
    with _opened(saved_path(path)) as handle:
        document = _document(handle)
        dag = rebuild(document, allowed)
        places = [place for leaf in leaves(dag) for place in tensor_places(leaf)]
        fill(places, document.table()["tensors"], handle)
    _verify(dag)
    return dag


def saved_path(path: str | Path) -> Path:
    """Return the path of the graph in a folder, ``model.safetensors``; other paths are returned as they are."""
    path = Path(path)
    return path / DEFAULT_NAME if path.is_dir() else path


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; every `SerializationError` names the file, in its message or in a note."""
    try:
        with Shards(path) if is_sharded(path) else safe_open(path, framework="pt") as handle:
            yield handle
    except SafetensorError as error:
        message = f"{str(path)!r} is not a complete safetensors file: {error}"
        raise SerializationError(message) from error
    except SerializationError as error:
        error.add_note(f"while reading {str(path)!r}")
        raise


def _document(handle: Any) -> Node:
    text = (handle.metadata() or {}).get(METADATA_KEY)
    if text is None:
        message = (
            f"the file has no {METADATA_KEY!r} in its header: it holds weights without a graph; "
            "load them into a model with safetensors.torch.load_file"
        )
        raise SerializationError(message)
    return parse(text, "graph document")


def _verify(dag: DagModule) -> None:
    try:
        for graph in graphs(dag):
            graph.verify()
    except GraphError as error:
        message = f"the graph of the file does not hold together: {error}"
        raise SerializationError(message) from error
