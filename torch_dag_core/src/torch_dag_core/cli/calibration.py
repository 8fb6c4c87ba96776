"""Calibration data that the user named: a folder of images, a file of tensors, or a callable that yields batches.

Images are resized, cropped and normalised as the model's library says: timm keeps it at the model
(``pretrained_cfg``), torchvision with its weights. For other models the shorter side is resized to 1 / 0.875 of the
input size (bicubic), the middle is cropped, and colours are normalised with the means and deviations of ImageNet.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from torch_dag_core.cli.references import attribute_named
from torch_dag_core.errors import InputError, ModelReferenceError
from torch_dag_core.graph.dag import DagModule

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PILLOW = "reading images needs Pillow; install it with `pip install torch-dag-core[images]`"


@dataclass(frozen=True)
class Amount:
    """How much data is read.

    Attributes:
        samples: At most so many.
        batch: So many at once.
    """

    samples: int = 512
    batch: int = 64


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input.

    Attributes:
        size: Color planes, height and width.
        resized: The shorter side of the image is resized to this many times the larger side of ``size``.
        mean: Of each color plane, where the values are between 0 and 1.
        deviation: The same.
        interpolation: A resampling filter of Pillow.
    """

    size: tuple[int, int, int]
    resized: float = 1 / 0.875
    mean: tuple[float, ...] = _MEAN
    deviation: tuple[float, ...] = _DEVIATION
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, model: nn.Module, reference: str, dag: DagModule) -> Preprocessing:
        """Return what the library of a model says, and the defaults where it says nothing.

        Raises:
            InputError: the model does not take one image.
        """
        size = _image_size(dag)
        known = _by_timm(model) or _by_torchvision(reference)
        mean, deviation = (_for_channels(known.get(name, usual), size[0]) for name, usual in _USUAL.items())
        return cls(
            size, known.get("resized", 1 / 0.875), mean, deviation, str(known.get("interpolation", "bicubic"))
        )  # fmt: skip

    def read(self, path: Path) -> Tensor:
        """Return an image as a tensor (color planes, height, width)."""
        from PIL import Image

        filters = {each.name.lower(): each for each in Image.Resampling}
        channels, height, width = self.size
        image: Any = Image.open(path).convert("L" if channels == 1 else "RGB")
        ratio = self.resized * max(height, width) / min(image.size)
        wide, high = (max(round(side * ratio), least) for side, least in zip(image.size, (width, height), strict=True))
        image = image.resize((wide, high), filters.get(self.interpolation, Image.Resampling.BICUBIC))
        left, top = (wide - width) // 2, (high - height) // 2
        image = image.crop((left, top, left + width, top + height))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(height, width, channels)
        mean, deviation = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.deviation))
        return (pixels.permute(2, 0, 1).float() / 255 - mean) / deviation


_USUAL: Final = {"mean": _MEAN, "deviation": _DEVIATION}


def _for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value for each color plane; for one plane, the mean of several."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def _by_timm(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping):
        return {}
    names = {"mean": "mean", "std": "deviation", "interpolation": "interpolation"}
    found = {ours: config[theirs] for theirs, ours in names.items() if config.get(theirs)}
    return found | ({"resized": 1 / config["crop_pct"]} if config.get("crop_pct") else {})


def _by_torchvision(reference: str) -> dict[str, Any]:
    library, _, name = reference.partition(":")
    if library.partition(".")[0] != "torchvision":
        return {}
    models = importlib.import_module("torchvision.models")
    try:
        preset: Any = models.get_model_weights(name.rpartition(".")[2]).DEFAULT.transforms()
        return {
            "mean": tuple(preset.mean), "deviation": tuple(preset.std), "interpolation": preset.interpolation.value,
            "resized": preset.resize_size[0] / preset.crop_size[0],
        }  # fmt: skip
    except (ValueError, AttributeError):
        return {}  # no weights of that name, or none that classify images


def _image_size(dag: DagModule) -> tuple[int, int, int]:
    specs = dag.input_spec.tensors
    shape = (specs[0].example_shape or ())[1:] if len(specs) == 1 else ()
    if len(shape) != 3 or shape[0] not in (1, 3):
        message = (
            "a folder of images calibrates models of one input (1 or 3 color planes, height, width), this one takes "
            f"{', '.join(str(spec.example_shape) for spec in specs)}; name a callable or a file of tensors"
        )
        raise InputError(message)
    return shape[0], shape[1], shape[2]


# Sources -------------------------------------------------------------------------------------------------------


def read_calibration(source: str, model: nn.Module, reference: str, dag: DagModule, amount: Amount) -> list[Any]:
    """Return batches of the data that the user named.

    Args:
        source: A folder of images, the path of a safetensors file whose tensors have the names of the inputs (any name
            where there is one), or ``package.module:callable``; what that returns is iterated over.
        model: What the graph was made of.
        reference: What the user calls the model.
        dag: The graph.
        amount: How much is read.

    Raises:
        InputError: there is no data, or none that the model takes.
        ModelReferenceError: the source is no folder, no file and no reference of a callable.
    """
    path = Path(source)
    if path.is_dir():
        batches = _images(path, Preprocessing.of(model, reference, dag), amount)
    elif path.suffix == ".safetensors":
        batches = _stored(path, dag, amount)
    else:
        batches = _called(source)
    return list(_at_most(batches, amount.samples))


def _images(folder: Path, preprocessing: Preprocessing, amount: Amount) -> Iterator[Tensor]:
    """Give batches of images drawn at random, always the same ones."""
    try:
        importlib.import_module("PIL")
    except ImportError as error:
        raise InputError(_PILLOW) from error
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        message = f"the folder {str(folder)!r} holds no image ({', '.join(sorted(SUFFIXES))})"
        raise InputError(message)
    chosen = random.Random(0).sample(paths, min(amount.samples, len(paths)))  # noqa: S311
    for at in range(0, len(chosen), amount.batch):
        yield torch.stack([_read(preprocessing, path) for path in chosen[at : at + amount.batch]])


def _read(preprocessing: Preprocessing, path: Path) -> Tensor:
    try:
        return preprocessing.read(path)
    except OSError as error:
        message = f"{str(path)!r} is no image that Pillow reads: {error}"
        raise InputError(message) from error


def _stored(path: Path, dag: DagModule, amount: Amount) -> Iterator[Any]:
    if not path.is_file():
        message = f"there is no file {str(path)!r}"
        raise InputError(message)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        message = f"{str(path)!r} is no safetensors file: {error}"
        raise InputError(message) from error
    names = [vertex.name for vertex in dag.input_vertices]
    given = list(tensors.values()) if len(tensors) == len(names) == 1 else [tensors.get(name) for name in names]
    found = [tensor for tensor in given if tensor is not None and tensor.dim()]
    if len(found) < len(names) or len({tensor.shape[0] for tensor in found}) != 1:
        message = f"{str(path)!r} must hold a tensor for each of {', '.join(names)}, with as many samples in each"
        raise InputError(message)
    for at in range(0, min(found[0].shape[0], amount.samples), amount.batch):
        yield tuple(tensor[at : at + amount.batch] for tensor in found)


def _called(source: str) -> Iterator[Any]:
    module, colon, attribute = source.partition(":")
    if not (colon and module and attribute):
        message = (
            f"{source!r} is no calibration data; name a folder of images, a .safetensors file, or "
            "package.module:callable"
        )
        raise ModelReferenceError(message)
    target = attribute_named(source, module, attribute)
    batches = target() if callable(target) else target
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        message = f"{source!r} must give an iterable of batches, got a {type(batches).__name__}"
        raise InputError(message)
    return iter(batches)


def _at_most(batches: Iterable[Any], samples: int) -> Iterator[Any]:
    """Give batches until there are enough samples."""
    seen = 0
    for batch in batches:
        yield batch
        items = batch.values() if isinstance(batch, Mapping) else [batch] if isinstance(batch, Tensor) else batch
        seen += len(next(iter(items)))
        if seen >= samples:
            return
