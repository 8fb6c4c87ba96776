"""Graphs to the Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from torch_dag_core.atomic_files import write_text
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.plugins.discovery import distribution_version
from torch_dag_hub.card import model_card
from torch_dag_hub.card_file import read_card
from torch_dag_hub.folder import save_pretrained
from torch_dag_hub.layout import CARD, WEIGHTS


def push_to_hub(
    dag: DagModule, repo_id: str, *, token: str | None = None, private: bool | None = None,
    commit: dict[str, Any] | None = None, **settings: Any,
) -> str:  # fmt: skip
    """Upload a graph with ``config.json`` and a model card, in one commit, and return the address of the commit.

    The repository is created if it is missing. The card that it has keeps all that its author wrote; if somebody
    changes the repository during the upload, the Hub refuses the commit. Files of an earlier graph are deleted in the
    same commit.

    Args:
        dag: The graph; it is not changed.
        repo_id: ``"user/name"``, or ``"name"`` for a repository of your own.
        token: Of your account; by default the one that ``hf auth login`` stored.
        private: Whether a repository that is created is private.
        commit: Options of `huggingface_hub.HfApi.upload_folder`: ``revision`` (a branch that exists), ``create_pr``,
            ``commit_message`` and ``commit_description``.
        **settings: The fields of `SharingSettings`, by name.

    Raises:
        HubError: a setting is wrong, the provenance was damaged, or the existing card has no place for the section.
        SerializationError: the graph cannot be saved; the message names the vertex.
        huggingface_hub.errors.HfHubHTTPError: the Hub refuses.
    """
    require_graphs("push_to_hub()", dag)
    options = {"commit_message": "Upload a graph of torch-dag", **(commit or {})}
    api = HfApi(token=token, library_name="torch-dag", library_version=distribution_version("torch-dag-hub"))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_pretrained(dag, folder, name=repo_id, **settings)  # refuses before anything is created
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        state = api.model_info(repo_id, revision=options.get("revision"))
        write_text(folder / CARD, model_card(dag, repo_id, existing=_card(api, repo_id, state), **settings))
        return str(
            api.upload_folder(
                repo_id=repo_id, folder_path=folder, parent_commit=state.sha, delete_patterns=list(WEIGHTS), **options
            )
        )


def _card(api: HfApi, repo_id: str, state: Any) -> str | None:
    """Return the model card that a repository has at a commit, None if it has none."""
    if CARD not in [file.rfilename for file in state.siblings or ()]:
        return None
    with TemporaryDirectory() as temporary:
        return read_card(Path(api.hf_hub_download(repo_id, CARD, revision=state.sha, local_dir=temporary)))
