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
    **dict.fromkeys(("num_key_value_heads", "num_experts", "num_local_experts", "num_experts_per_tok"), _GROUPS),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layers", "n_layer", "encoder_layers",
                     "decoder_layers"), _LAYERS),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim",
                     "moe_intermediate_size", "shared_expert_intermediate_size"), _INNER),
    **dict.fromkeys(("head_dim", "d_kv"), _WIDTH // _HEADS), "rotary_dim": _WIDTH // _HEADS // 2,
    "vocab_size": _TOKENS, "image_size": _IMAGE, "patch_size": _PATCH,
}  # fmt: skip
_STAGES = frozenset({"depths", "hidden_sizes", "embed_dims", "n_attn_blocks", "num_block_repeats", "neck_hidden_sizes"})
"""Lists of sizes, one a stage: a model that has them is small already, and no single size of it can change alone."""
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], _LAYERS // 2]]},
    "lilt": {"hidden_size": 96},
    "mamba2": {"num_heads": 2 * _WIDTH // (_WIDTH // _HEADS)},
}
"""What single model types need beside, because sizes of theirs depend on each other."""
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def model_of(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``transformers:CONFIG`` names, with random weights. Return None for other references.

    Args:
        reference: The prefix and a model type, such as ``bert``.
        options: Values for the configuration, and ``auto``: the class that builds the model; by default ``AutoModel``,
            or the first ``AutoModelFor...`` that knows a type which has nothing but a head.

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
    auto = given.pop("auto", None)
    if given.pop("pretrained", False):
        message = f"{reference!r} is a small model without trained weights; name your own with package.module:callable"
        raise ModelReferenceError(message)
    try:
        config = _config(CONFIG_MAPPING[name], {**_OWN.get(name, {}), **given})
        model: nn.Module = _builder(transformers, auto, config).from_config(config)
    except Exception as error:
        message = f"{reference!r} cannot be built with {dict(options)!r}: {type(error).__name__}: {error}"
        raise ModelReferenceError(message) from error
    return model


def _builder(transformers: Any, auto: Any, config: Any) -> Any:
    """Return the class of transformers that builds a model for a configuration."""
    if auto is not None:
        return getattr(transformers, str(auto))
    heads = (getattr(transformers, name) for name in sorted(dir(transformers)) if name.startswith("AutoModelFor"))
    known = (each for each in heads if type(config) in getattr(each, "_model_mapping", ()))
    plain = transformers.AutoModel
    return plain if type(config) in plain._model_mapping else next(known, plain)


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
    if any(isinstance(getattr(plain, name, None), list | tuple) for name in _STAGES):
        return {}
    values: dict[str, Any] = {
        names.get(name, name): size
        for name, size in _SMALL.items()
        if isinstance(getattr(plain, name, None), int) and not isinstance(getattr(type(plain), name, None), property)
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
