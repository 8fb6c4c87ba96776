"""Writing a file so that a crash at any moment leaves the old one or the new one.

The new content goes into a folder ``.NAME.*.tmp`` beside the file, is flushed to the disk and renamed (a folder,
because safetensors makes temporary files of its own). A killed process may leave such a folder behind; nothing
reads it, and a later save of the same name removes it once it has not been written to for an hour (a younger one
may belong to a save that is still running).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.serialization.catalogue import chosen_registry
from torch_dag_core.serialization.describe import describe
from torch_dag_core.serialization.node import to_text
from torch_dag_core.serialization.tensors import collect
from torch_dag_core.serialization.walk import is_graph, leaves, tensor_places

METADATA_KEY = "torch_dag"
_STALE_AFTER_SECONDS = 3600.0


def save(dag: DagModule, path: str | Path, *, registry: Registry | None = None) -> None:
    """Write a graph with its weights to one safetensors file, replacing it atomically.

    The same graph gives the same bytes. The graph is not changed; hooks on modules are not saved.

    Args:
        dag: What to save, on any device.
        path: The file; ``.safetensors`` is the suffix that other tools expect.
        registry: The ops that may be saved; those of the core and all plugins by default.

    Raises:
        SerializationError: something in the graph cannot be saved; the message names the vertex and a way out.
        OSError: the file cannot be written.
    """
    if not is_graph(dag):
        message = f"only a DagModule can be saved, not a {type(dag).__name__}; convert the model first"
        raise SerializationError(message)
    document = describe(dag, chosen_registry(registry))
    places = (place for leaf in leaves(dag) for place in tensor_places(leaf))
    stored, document["tensors"] = collect(places)
    with _replacing(Path(os.path.realpath(path))) as temporary:
        try:
            save_file(stored, temporary, {METADATA_KEY: to_text(document)})
        except SafetensorError as error:
            message = f"{path} cannot be written: {error}"
            raise SerializationError(message) from error


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a temporary file to write to, which becomes ``target`` when the block ends without an error."""
    _remove_stale(target)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    folder.mkdir()
    temporary = folder / "content"
    try:
        temporary.touch()
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors gives the file to its owner alone
        _flush(temporary)
        temporary.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":
        _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    oldest = time.time() - _STALE_AFTER_SECONDS
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for folder in target.parent.iterdir():
        if ours.fullmatch(folder.name):
            with contextlib.suppress(OSError):  # another process may be removing it too
                if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < oldest:
                    shutil.rmtree(folder)
