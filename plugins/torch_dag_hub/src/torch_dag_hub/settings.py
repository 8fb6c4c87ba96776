"""What a user says about a shared graph that cannot be measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch_dag_hub.errors import HubError

PREPROCESSING: Final = (
    "input_size", "min_input_size", "test_input_size", "interpolation", "crop_pct", "test_crop_pct", "crop_mode",
    "mean", "std", "label_names", "label_descriptions", "license", "description", "origin_url", "paper_name",
    "paper_ids",
)  # fmt: skip
"""What is taken over from the ``pretrained_cfg`` of a model of timm; the rest describes files of that model."""


@dataclass(frozen=True, kw_only=True)
class SharingSettings:
    """What is written beside the weights, apart from what is measured.

    Attributes:
        pretrained_cfg: How inputs are prepared, under the names of timm: ``model.pretrained_cfg`` of the model that the
            graph was made from. Entries about its weight files are left out.
        metadata: Entries of the model card's front matter, such as ``{"base_model": "timm/resnet18.a1_in1k",
            "license": "apache-2.0"}``. Those that a card has already are kept.
        max_shard_size: Bytes of tensors in a file at most, or a text such as ``"5GB"``; None for one file of any size.
    """

    pretrained_cfg: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    max_shard_size: int | str | None = "5GB"

    def __post_init__(self) -> None:
        """Check that both mappings can be written to a file.

        Raises:
            HubError: names the mapping and what is wrong with it.
        """
        _require_plain("pretrained_cfg", self.preprocessing)
        _require_plain("metadata", self.metadata)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The entries of ``pretrained_cfg`` that hold for the graph as well, without those that are None."""
        given: Any = self.pretrained_cfg or {}
        if not isinstance(given, Mapping):
            message = f"pretrained_cfg is a mapping, such as that of a model of timm, not a {type(given).__name__}"
            raise HubError(message)
        return {key: given[key] for key in PREPROCESSING if given.get(key) is not None}


def _require_plain(name: str, entries: Any) -> None:
    is_mapping = isinstance(entries, Mapping) and all(isinstance(key, str) for key in entries)
    if not is_mapping:
        message = f"{name} must be a mapping with texts as keys, got {entries!r:.100}"
        raise HubError(message)
    for key, value in entries.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            message = f"{name}[{key!r}] cannot be written to a file: {error}; use texts, numbers, lists and mappings"
            raise HubError(message) from error
