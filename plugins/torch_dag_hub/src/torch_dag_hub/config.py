"""The file ``config.json``: what timm, and the Hub's counter of downloads, look for."""

from __future__ import annotations

import json
from typing import Any, Final

from torch_dag_core.graph.inputs import TensorSpec
from torch_dag_hub.errors import HubError
from torch_dag_hub.facts import GraphFacts
from torch_dag_hub.settings import SharingSettings

ARCHITECTURE: Final = "torch_dag"
"""The name under which `torch_dag_hub.with_timm` registers all graphs with timm."""
_LABELS = ("label_names", "label_descriptions")


def config(facts: GraphFacts, settings: SharingSettings) -> dict[str, Any]:
    """Return the content of ``config.json``; the entries for timm are there if the input is one batch of images.

    Raises:
        HubError: ``pretrained_cfg`` describes images that the graph does not take.
    """
    described = {"torch_dag": {"model": facts.model, "flops": facts.flops, "parameters": facts.parameters}}
    if facts.image is None:
        return {**described, "pretrained_cfg": settings.preprocessing} if settings.preprocessing else described
    head = facts.head
    classes = 0 if head is None else head.classes
    entries = {"architecture": ARCHITECTURE, "num_classes": classes, "num_features": head and head.features}
    return {
        **{key: value for key, value in entries.items() if value is not None},
        "pretrained_cfg": _pretrained_cfg(facts, facts.image, settings),
        **described,
    }


def to_text(content: dict[str, Any]) -> str:
    """Return the text of the file."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _pretrained_cfg(facts: GraphFacts, image: TensorSpec, settings: SharingSettings) -> dict[str, Any]:
    """Return how images are prepared, and what is known of the classes."""
    entries = settings.preprocessing
    assert image.example_shape is not None
    entries.setdefault("input_size", list(image.example_shape[1:]))
    _require_accepted(entries["input_size"], facts, image)
    other_sizes = [key for key in ("min_input_size", "test_input_size") if key in entries]
    for key in other_sizes:
        if not facts.accepts_image(entries[key]):
            del entries[key]  # a recommendation that holds for the source model alone
    classes = 0 if facts.head is None else facts.head.classes
    if len(entries.get("label_names", ())) not in (0, classes):
        entries = {key: value for key, value in entries.items() if key not in _LABELS}  # classes were removed
    return {
        **entries,
        "architecture": ARCHITECTURE,
        "num_classes": classes,
        "classifier": None if facts.head is None else facts.head.layer,
        "fixed_input_size": None not in image.shape[2:],
    }


def _require_accepted(size: Any, facts: GraphFacts, image: TensorSpec) -> None:
    if not facts.accepts_image(size):
        assert image.example_shape is not None
        message = (
            f"pretrained_cfg['input_size'] is {size!r:.60}, which the graph does not take; leave it out or correct it: "
            f"the graph was made with {image.example_shape[1:]}"
        )
        raise HubError(message)
