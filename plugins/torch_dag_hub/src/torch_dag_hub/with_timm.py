"""Shared graphs as models of timm: ``pip install torch-dag-hub[timm]``.

Importing this module registers the architecture ``torch_dag`` with timm, which is what ``config.json`` names:

    import timm
    import torch_dag_hub.with_timm

    model = timm.create_model("local-dir:FOLDER")       # or "hf-hub:user/name"
    data = timm.data.resolve_model_data_config(model)

The model is the graph itself, with the attributes ``pretrained_cfg``, ``num_classes`` and ``num_features`` that timm
reads. Its weights are part of the graph, so they are loaded whether ``pretrained`` is set or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

try:
    from timm.models import register_model, resolve_pretrained_cfg
except ImportError as error:
    message = "torch_dag_hub.with_timm needs timm 1.0.20 or newer: pip install torch-dag-hub[timm]"
    raise ImportError(message) from error

from torch_dag_core.graph.dag import DagModule
from torch_dag_hub.config import ARCHITECTURE
from torch_dag_hub.downloading import from_pretrained
from torch_dag_hub.errors import HubError
from torch_dag_hub.facts import GraphFacts, Head

__all__ = ["torch_dag"]

_RATES: Final = (
    "drop_rate",
    "drop_path_rate",
    "drop_block_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "patch_drop_rate",
)
"""Arguments that scripts pass as 0 if nobody asked for them."""


@register_model  # type: ignore[untyped-decorator]
def torch_dag(
    pretrained: bool = False,  # noqa: FBT001, FBT002 - the signature that timm calls
    *, pretrained_cfg: Any = None, pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None, **arguments: Any,
) -> DagModule:  # fmt: skip
    """Return the graph of a folder or a repository as a model of timm.

    Args:
        pretrained: Makes no difference: the weights are part of the graph.
        pretrained_cfg: What timm read from ``config.json``, with the place that it read it from.
        pretrained_cfg_overlay: Replaces entries of that.
        cache_dir: Where downloads are kept.
        **arguments: What else timm passes on; only what the graph is in any case is accepted.

    Raises:
        HubError: no folder or repository was named, or an argument asks for another model than the saved one.
        SerializationError: the file is damaged, or uses ops that are not registered.
    """
    del pretrained
    place = dict(pretrained_cfg) if isinstance(pretrained_cfg, Mapping) else {}
    dag = _loaded(place, cache_dir)
    described = resolve_pretrained_cfg(
        ARCHITECTURE, pretrained_cfg=place, pretrained_cfg_overlay=pretrained_cfg_overlay
    )
    entries = described.to_dict()
    head = GraphFacts.of(dag).head
    _require_saved(arguments, entries, head)
    attributes = {
        "pretrained_cfg": entries,
        "default_cfg": entries,
        "num_classes": 0 if head is None else head.classes,
        "num_features": None if head is None else head.features,
    }
    for name, value in attributes.items():
        setattr(dag, name, value)
    return dag


def _loaded(place: Mapping[str, Any], cache_dir: str | Path | None) -> DagModule:
    source = place.get("source")
    if source == "local-dir":
        return from_pretrained(Path(place["file"]))
    if source == "hf-hub":
        repo_id, _, revision = place["hf_hub_id"].partition("@")
        return from_pretrained(repo_id, revision=revision or None, cache_dir=cache_dir)
    message = (
        "the architecture 'torch_dag' stands for graphs in files; name one: timm.create_model('local-dir:FOLDER') or "
        "timm.create_model('hf-hub:user/name')"
    )
    raise HubError(message)


def _require_saved(arguments: Mapping[str, Any], entries: Mapping[str, Any], head: Head | None) -> None:
    """Refuse arguments that ask for something other than the saved graph."""
    channels, *sides = entries["input_size"]
    saved = {
        "num_classes": (0 if head is None else head.classes,),
        "in_chans": (channels,),
        "img_size": (tuple(sides), list(sides), *(sides if len(set(sides)) == 1 else [])),
        **dict.fromkeys(_RATES, (0,)),
    }
    for name, value in arguments.items():
        if name != "pretrained_model_args" and value not in saved.get(name, ()):
            message = (
                f"a graph is as it was saved, so {name}={value!r:.60} cannot be followed; leave it out, and edit the "
                "model that create_model returns: it is a DagModule"
            )
            raise HubError(message)
