"""Example inputs for the models of transformers, by their main input and their configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_BASE = "transformers.modeling_utils.PreTrainedModel"
_SAMPLES, _TOKENS, _TARGETS = 2, 8, 6
_SECOND_OF_SOUND, _FRAMES = 16_000, 3_000


def example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Return ``((), keywords)`` for a model of transformers; None for other models and for inputs unknown here."""
    if not any(f"{base.__module__}.{base.__qualname__}" == _BASE for base in type(model).__mro__):
        return None
    kind: Any = model
    make = _MAIN.get(kind.main_input_name)
    if make is None:
        return None
    taken = inspect.signature(model.forward).parameters
    inputs: dict[str, Any] = {kind.main_input_name: make(kind.config)}
    if kind.main_input_name == "input_ids":
        inputs |= _beside_tokens(kind, taken)
    elif getattr(kind.config, "is_encoder_decoder", False) and "decoder_input_ids" in taken:
        inputs["decoder_input_ids"] = _ids(kind.config, _TARGETS)
    if "use_cache" in taken:
        inputs["use_cache"] = False
    return (), inputs


def _beside_tokens(model: Any, taken: Any) -> dict[str, Any]:
    """Return what a model of text takes besides tokens: a mask, the tokens of a decoder, images."""
    config, inputs = model.config, dict[str, Any]()
    if "attention_mask" in taken:
        inputs["attention_mask"] = torch.ones(_SAMPLES, _TOKENS, dtype=torch.int64)
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in taken:
        inputs["decoder_input_ids"] = _ids(config, _TARGETS)
    if "pixel_values" in taken and (hasattr(config, "vision_config") or hasattr(config, "num_channels")):
        inputs["pixel_values"] = _images(config)
    return inputs


def _ids(config: Any, length: int = _TOKENS) -> Tensor:
    """Return ids of distinct tokens (samples, length), none of which is padding or the end."""
    special = {getattr(part, name, None) for part in _parts(config) for name in ("pad_token_id", "eos_token_id")}
    size = next((part.vocab_size for part in _parts(config) if hasattr(part, "vocab_size")), _TOKENS)
    plain = [number for number in range(size) if number not in special][:length] or [0]
    row = torch.tensor(plain).repeat(length)[:length]
    return row.repeat(_SAMPLES, 1)


def _images(config: Any) -> Tensor:
    """Return black images (samples, channels, height, width), or as many frames of a video behind the samples."""
    parts = list(_parts(config))
    size = next((part.image_size for part in parts if getattr(part, "image_size", None)), 224)
    channels = next((part.num_channels for part in parts if getattr(part, "num_channels", None)), 3)
    frames = next((part.num_frames for part in parts if getattr(part, "num_frames", None)), None)
    shape = (channels, *((size, size) if isinstance(size, int) else size))
    return torch.zeros(_SAMPLES, *(() if frames is None else (frames,)), *shape)


def _sound(config: Any) -> Tensor:
    """Return silence: a second of it (samples, length), with channels where there are some, or its spectrogram."""
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return torch.zeros(_SAMPLES, config.max_length, config.num_mel_bins)
    channels = (config.audio_channels,) if hasattr(config, "audio_channels") else ()
    return torch.zeros(_SAMPLES, *channels, _SECOND_OF_SOUND)


def _spectrum(config: Any) -> Tensor:
    """Return half a minute of silence as a spectrogram (samples, bins, frames), or frames first where they lead."""
    if hasattr(config, "input_feat_per_channel"):
        return torch.zeros(_SAMPLES, _FRAMES, config.input_feat_per_channel * config.input_channels)
    positions = getattr(config, "max_source_positions", None)
    return torch.zeros(_SAMPLES, getattr(config, "num_mel_bins", 80), 2 * positions if positions else _FRAMES)


def _parts(config: Any) -> Iterator[Any]:
    """Iterate over a configuration and the parts that it has for text and images."""
    yield config
    yield from (part for name in ("text_config", "vision_config") if (part := getattr(config, name, None)) is not None)


_MAIN: dict[str, Callable[[Any], Tensor]] = {
    "input_ids": _ids, "pixel_values": _images, "input_values": _sound, "input_features": _spectrum,
}  # fmt: skip
