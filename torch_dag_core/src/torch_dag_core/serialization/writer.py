"""Writing a graph with its weights to one safetensors file."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from torch_dag_core.atomic_files import check_writable, replacing
from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.serialization.catalogue import chosen_registry
from torch_dag_core.serialization.describe import describe
from torch_dag_core.serialization.node import to_text
from torch_dag_core.serialization.shards import byte_count, divide, remove_shards, save_shards
from torch_dag_core.serialization.tensors import collect
from torch_dag_core.serialization.walk import is_graph, leaves, tensor_places

METADATA_KEY = "torch_dag"


def save(
    dag: DagModule, path: str | Path, *, registry: Registry | None = None, max_shard_size: int | str | None = None,
) -> None:  # fmt: skip
    """Write a graph with its weights to one safetensors file, replacing it atomically.

    The same graph gives the same bytes. The graph is not changed; hooks on modules are not saved.

    A model larger than ``max_shard_size`` becomes several files beside ``path``: shards, and the index
    ``NAME.safetensors.index.json`` with the graph, which is written last. `load` takes ``path`` or the index.

    Args:
        dag: What to save, on any device.
        path: The file; ``.safetensors`` is the suffix that other tools expect.
        registry: The ops that may be saved; those of the core and all plugins by default.
        max_shard_size: Bytes of tensors in a file at most, or a text such as ``"5GB"``; a larger tensor has a file of
            its own. None for one file of any size.

    Raises:
        SerializationError: something in the graph cannot be saved; the message names the vertex and a way out. Or
            ``max_shard_size`` is no size.
        OSError: the file cannot be written, or the path is something other than a file.
    """
    if not is_graph(dag):
        message = f"only a DagModule can be saved, not a {type(dag).__name__}; convert the model first"
        raise SerializationError(message)
    limit = None if max_shard_size is None else byte_count(max_shard_size)
    target = check_writable(path)
    document = describe(dag, chosen_registry(registry))
    places = (place for leaf in leaves(dag) for place in tensor_places(leaf))
    stored, document["tensors"] = collect(places)
    groups = [stored] if limit is None else divide(stored, limit)
    try:
        if len(groups) > 1:
            save_shards(groups, target, METADATA_KEY, to_text(document))
        else:
            _save_one(stored, target, to_text(document))
    except SafetensorError as error:
        message = f"{path} cannot be written: {error}"
        raise SerializationError(message) from error


def _save_one(stored: dict[str, Tensor], path: Path, document: str) -> None:
    with replacing(path) as temporary:
        save_file(stored, temporary, {METADATA_KEY: document})
    remove_shards(path)
