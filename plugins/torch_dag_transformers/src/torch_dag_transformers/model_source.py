"""Small models with random weights, by the names that transformers gives to its configurations."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.model_sources import ModelList

PREFIX = "transformers:"
_WIDTH, _HEADS, _GROUPS, _LAYERS, _INNER, _TOKENS, _IMAGE, _PATCH = 64, 4, 2, 2, 128, 1_000, 64, 16
_SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "embedding_size", "word_embed_proj_dim"), _WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads",
                     "decoder_attention_heads"), _HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_experts", "num_local_experts"), _GROUPS),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layers", "n_layer", "encoder_layers",
                     "decoder_layers"), _LAYERS),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim",
                     "moe_intermediate_size", "shared_expert_intermediate_size"), _INNER),
    **dict.fromkeys(("head_dim", "d_kv"), _WIDTH // _HEADS),
    "vocab_size": _TOKENS, "image_size": _IMAGE, "patch_size": _PATCH,
}  # fmt: skip
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def model_of(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``transformers:CONFIG`` names, with random weights. Return None for other references.

    Args:
        reference: The prefix and a model type, such as ``bert``.
        options: Values for the configuration, and ``auto``: the class that builds the model, ``AutoModel`` by default.

    Raises:
        ModelReferenceError: there is no such model type, it cannot be built so, trained weights are asked for, or
            transformers is not installed.
    """
    if not reference.startswith(PREFIX):
        return None
    try:
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError as error:
        message = f"{reference!r} needs transformers; pip install 'torch-dag-transformers[transformers]'"
        raise ModelReferenceError(message) from error
    name = reference.removeprefix(PREFIX)
    if name not in CONFIG_MAPPING:
        close = ", ".join(difflib.get_close_matches(name, list(CONFIG_MAPPING.keys()))) or "CONFIG_MAPPING lists them"
        message = f"transformers {transformers.__version__} has no model type {name!r}; did you mean: {close}"
        raise ModelReferenceError(message)
    given = dict(options)
    auto = str(given.pop("auto", "AutoModel"))
    if given.pop("pretrained", False):
        message = f"{reference!r} is a small model without trained weights; name your own with package.module:callable"
        raise ModelReferenceError(message)
    try:
        model: nn.Module = getattr(transformers, auto).from_config(_config(CONFIG_MAPPING[name], given))
    except Exception as error:
        message = f"{reference!r} cannot be built with {dict(options)!r}: {type(error).__name__}: {error}"
        raise ModelReferenceError(message) from error
    return model


def _config(kind: Any, given: dict[str, Any]) -> Any:
    """Return a configuration with small sizes under whatever names it has for them."""
    plain = kind()
    values = _small_values(plain)
    for part in ("text_config", "vision_config"):
        inner = getattr(plain, part, None)
        if inner is not None and not isinstance(inner, dict):
            values[part] = _small_values(inner)
    return kind(**{**values, **given})


def _small_values(plain: Any) -> dict[str, Any]:
    names = getattr(plain, "attribute_map", {})
    values: dict[str, Any] = {
        names.get(name, name): size for name, size in _SMALL.items() if isinstance(getattr(plain, name, None), int)
    }
    if "vocab_size" in values:
        for place, name in enumerate(_IDS):
            number = getattr(plain, name, None)
            if isinstance(number, int) and number >= _TOKENS:
                values[name] = place
    return values


def model_list() -> ModelList:
    """Return the list of the model types that transformers has a configuration for."""
    return ModelList(
        name=PREFIX.removesuffix(":"), names=_names, distribution="transformers", packages=("transformers",)
    )


def _names() -> list[str]:
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError as error:
        message = "transformers cannot be imported; pip install 'torch-dag-transformers[transformers]'"
        raise ModelReferenceError(message) from error
    return list(CONFIG_MAPPING.keys())
