"""Graphs from the Hub, or from folders of its layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.discovery import distribution_version
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.serialization.reader import load
from torch_dag_hub.errors import HubError
from torch_dag_hub.layout import CONFIG, WEIGHTS


def from_pretrained(
    repo_or_folder: str | Path, *, registry: Registry | None = None, atomic_modules: Sequence[type[nn.Module]] = (),
    **download: Any,
) -> DagModule:  # fmt: skip
    """Return the graph of a repository on the Hub, or of a folder.

    Nothing of it is executed or imported; see `torch_dag_core.load`. The graph is on the CPU, in the mode in which it
    was saved.

    Args:
        repo_or_folder: ``"user/name"``, or the path of a folder with a ``model.safetensors``.
        registry: The ops that may occur; those of the core and all plugins by default.
        atomic_modules: Classes of your own that the graph holds.
        **download: For a repository, options of `huggingface_hub.snapshot_download` such as ``revision``, ``token``,
            ``cache_dir`` and ``local_files_only``.

    Raises:
        HubError: there is no such folder, or options of a download were given for one.
        SerializationError: the files are damaged, or use ops that are not registered.
        huggingface_hub.errors.HfHubHTTPError: the repository cannot be read.
        OSError: the repository or the folder holds no graph.
    """
    return load(downloaded(repo_or_folder, **download), registry=registry, atomic_modules=atomic_modules)


def downloaded(repo_or_folder: str | Path, **download: Any) -> Path:
    """Return the folder with the files of a graph, which are downloaded unless it is there.

    Raises:
        HubError: there is no such folder, or options of a download were given for one.
    """
    folder = Path(repo_or_folder)
    if folder.is_dir():
        given = [name for name, value in download.items() if value not in (None, False)]
        if given:
            message = f"{str(folder)!r} is a folder on this machine, for which {given[0]!r} means nothing; leave it out"
            raise HubError(message)
        return folder
    if isinstance(repo_or_folder, Path) or str(repo_or_folder).startswith((".", "/", "~")):
        message = f"there is no folder {str(repo_or_folder)!r}; a repository on the Hub is written 'user/name'"
        raise HubError(message)
    patterns = [CONFIG, *WEIGHTS]
    version = distribution_version("torch-dag-hub")
    return Path(
        snapshot_download(
            repo_or_folder, allow_patterns=patterns, library_name="torch-dag", library_version=version, **download
        )
    )
