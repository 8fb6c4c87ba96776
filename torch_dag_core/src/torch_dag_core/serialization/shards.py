"""A graph in several safetensors files: shards, and an index as other tools of the field write it.

The index ``NAME.safetensors.index.json`` has the keys ``metadata`` (``total_size`` in bytes, and the graph document
under ``torch_dag``) and ``weight_map`` (the file of each tensor). A shard is named after its content, so a shard is
never overwritten with other content, and replacing the index replaces the whole model atomically.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from torch_dag_core.atomic_files import check_writable, replacing, write_text
from torch_dag_core.errors import SerializationError

INDEX_SUFFIX = ".index.json"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1, "": 1}
_DIGEST_LENGTH = 16


def byte_count(size: int | str) -> int:
    """Return a size in bytes, such as ``5_000_000_000`` or ``"5GB"``.

    >>> byte_count("5GB"), byte_count("1.5 KiB")
    (5000000000, 1536)

    Raises:
        SerializationError: it is no positive number of bytes.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(size))
    unit = _UNITS.get(match[2].upper()) if match else None
    count = int(float(match[1]) * unit) if match and unit else 0
    if count < 1:
        message = f"{size!r} is no size of a file; write a positive number of bytes, or a text such as '5GB'"
        raise SerializationError(message)
    return count


def index_path(path: str | Path) -> Path:
    """Return the index that belongs to the path of a graph; an index is returned as it is."""
    path = Path(path)
    return path if path.name.endswith(INDEX_SUFFIX) else path.with_name(path.name + INDEX_SUFFIX)


def is_sharded(path: str | Path) -> bool:
    """Tell whether a path names an index, or a graph of which there is an index and no single file."""
    path = Path(path)
    return path.name.endswith(INDEX_SUFFIX) or (not path.exists() and index_path(path).is_file())


def divide(stored: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """Divide tensors, in order, into groups of at most ``limit`` bytes; a larger tensor has a group of its own."""
    groups: list[dict[str, Tensor]] = []
    room = 0
    for name, tensor in stored.items():
        if not groups or tensor.nbytes > room:
            groups.append({})
            room = limit
        groups[-1][name] = tensor
        room -= tensor.nbytes
    return groups


def save_shards(groups: list[dict[str, Tensor]], path: Path, key: str, document: str) -> None:
    """Write shards and their index beside ``path``, then remove what an earlier save left under the same name.

    Args:
        groups: The tensors of each shard, by name.
        path: The path of the graph, ending in ``.safetensors``.
        key: The key of the document in the index's metadata.
        document: The graph.

    Raises:
        SerializationError: a shard cannot be written by safetensors.
        OSError: a file cannot be written.
    """
    index = index_path(path)
    check_writable(index)
    outdated = listed_shards(index)
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = _save_shard(group, path, f"{number:05d}-of-{len(groups):05d}")
        weight_map.update(dict.fromkeys(group, name))
    total = sum(tensor.nbytes for group in groups for tensor in group.values())
    content = {"metadata": {"total_size": total, key: document}, "weight_map": weight_map}
    write_text(index, json.dumps(content, indent=2, sort_keys=True) + "\n")
    path.unlink(missing_ok=True)
    _remove(outdated - {path.with_name(name) for name in weight_map.values()})


def _save_shard(group: dict[str, Tensor], path: Path, number: str) -> str:
    """Write one shard and return its name, which contains a hash of its content."""
    target = path.with_name(f"{path.stem}-{_digest(group)}-{number}.safetensors")
    with replacing(target) as temporary:
        save_file(group, temporary, {"format": "pt"})
    return target.name


def _digest(group: Mapping[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name, tensor in group.items():
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.cpu()
        if values.nbytes:
            content.update((ctypes.c_char * values.nbytes).from_address(values.data_ptr()))  # a view, not a copy
    return content.hexdigest()[:_DIGEST_LENGTH]


def remove_shards(path: Path) -> None:
    """Remove the index of a graph that is now one file, with the shards that it lists."""
    index = index_path(path)
    shards = listed_shards(index)
    index.unlink(missing_ok=True)
    _remove(shards)


def listed_shards(index: Path) -> set[Path]:
    """Return the shards that an index written by `save_shards` lists; none if there is no such index."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = set(content["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()
    stem = re.escape(index.name.removesuffix(INDEX_SUFFIX).removesuffix(".safetensors"))
    ours = re.compile(rf"{stem}-[0-9a-f]{{{_DIGEST_LENGTH}}}-\d{{5,}}-of-\d{{5,}}\.safetensors")
    return {index.with_name(name) for name in names if isinstance(name, str) and ours.fullmatch(name)}


def _remove(shards: Iterable[Path]) -> None:
    for shard in shards:
        shard.unlink(missing_ok=True)


class Shards:
    """Several safetensors files, read like one; use it in a ``with`` statement.

    Raises:
        SerializationError: the index is damaged, or names a file outside its folder; a shard is missing or holds other
            tensors than the index says.
        OSError: the index cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._index = index_path(path)
        self._metadata, self._weight_map = _read_index(self._index)
        self._files = ExitStack()
        self._handles: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with ExitStack() as files:
            for shard in sorted(set(self._weight_map.values())):
                self._handles[shard] = files.enter_context(self._opened(shard))
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def _opened(self, shard: str) -> Any:
        path = self._index.with_name(shard)
        if not path.is_file():
            message = f"the shard {shard!r} that {self._index.name!r} lists is missing; all files belong in one folder"
            raise SerializationError(message)
        handle: Any = safe_open(path, framework="pt")
        expected = {name for name, other in self._weight_map.items() if other == shard}
        differing = expected ^ set(handle.keys())
        if differing:
            message = (
                f"the shard {shard!r} and {self._index.name!r} disagree about the tensor {min(differing)!r:.100}; "
                "the files belong to different models, or one is damaged"
            )
            raise SerializationError(message)
        return handle

    def metadata(self) -> dict[str, str]:
        """Return the texts in the index's metadata."""
        return {name: value for name, value in self._metadata.items() if isinstance(value, str)}

    def keys(self) -> list[str]:
        """Return the names of all tensors."""
        return list(self._weight_map)

    def get_slice(self, name: str) -> Any:
        """Return the header of one tensor."""
        return self._handles[self._weight_map[name]].get_slice(name)

    def get_tensor(self, name: str) -> Tensor:
        """Return one tensor, mapped from its file."""
        tensor: Tensor = self._handles[self._weight_map[name]].get_tensor(name)
        return tensor


def _read_index(index: Path) -> tuple[dict[str, Any], dict[str, str]]:
    text = index.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{str(index)!r} is no index: {error}"
        raise SerializationError(message) from error
    metadata, weight_map = (
        content.get(key) if isinstance(content, dict) else None for key in ("metadata", "weight_map")
    )
    if not isinstance(metadata, dict) or not isinstance(weight_map, dict):
        message = f"{str(index)!r} is no index: it lacks the tables 'metadata' and 'weight_map'"
        raise SerializationError(message)
    for shard in weight_map.values():
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\:\0]+\.safetensors", shard):
            message = f"{str(index)!r} lists {shard!r:.100}, which is no safetensors file in the same folder"
            raise SerializationError(message)
    return metadata, weight_map
