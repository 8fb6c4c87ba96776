"""A graph in a folder with the files that the Hub, timm and people look for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch_dag_core.atomic_files import write_text
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_hub.card import card_text
from torch_dag_hub.card_file import read_card
from torch_dag_hub.config import config, to_text
from torch_dag_hub.facts import GraphFacts
from torch_dag_hub.layout import CARD, CONFIG, MODEL
from torch_dag_hub.settings import SharingSettings


def save_pretrained(dag: DagModule, folder: str | Path, *, name: str | None = None, **settings: Any) -> Path:
    """Write a graph, ``config.json`` and a model card to a folder, which is made if it is missing; return the folder.

    The graph is in ``model.safetensors``, or in several files if it is large. A ``README.md`` that is there keeps all
    that its author wrote: see `model_card`. Other files of the folder are left alone.

    Args:
        dag: The graph; it is not changed.
        folder: Where to write.
        name: What the card calls the model: the id of its repository, by default the name of the folder.
        **settings: The fields of `SharingSettings`, by name.

    Raises:
        HubError: a setting is wrong, the provenance was damaged, or the existing card has no place for the section.
        SerializationError: the graph cannot be saved; the message names the vertex.
        OSError: a file cannot be written.
    """
    require_graphs("save_pretrained()", dag)
    chosen, folder = SharingSettings(**settings), Path(folder)
    card, facts = folder / CARD, GraphFacts.of(dag)
    existing = read_card(card) if card.exists() else None
    texts = {
        folder / CONFIG: to_text(config(facts, chosen)),
        card: card_text(facts, name or folder.resolve().name, existing, chosen),
    }
    folder.mkdir(parents=True, exist_ok=True)
    dag.save(folder / MODEL, max_shard_size=chosen.max_shard_size)
    for path, text in texts.items():
        write_text(path, text)
    return folder
