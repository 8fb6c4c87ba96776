"""The command ``torch-dag compare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch_dag_core.cli.answers import answer, answers, say, step
from torch_dag_core.cli.console import console
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.errors import InputError, ModelReferenceError, TorchDagError

if TYPE_CHECKING:
    from torch import Tensor

    from torch_dag_core.cli.model_choice import ModelChoice
    from torch_dag_core.graph.dag import DagModule


class DifferenceError(TorchDagError):
    """The two models that were compared do not agree."""


@click.command(epilog=example("torch-dag compare timm:resnet18 --size 3,64,64"))
@takes_model
@click.option("--against", metavar="MODEL", help="What to compare with; the model's own graph by default.")
@click.option("--photos", is_flag=True, help="Compare on the photographs that scikit-image ships.")
@click.option("--images", multiple=True, type=click.Path(path_type=Path), help="An image file to compare on.")
@click.option("--tolerance", type=float, default=0.0, show_default=True, help="Relative difference that is accepted.")
@answers
def compare(
    *, choice: ModelChoice, against: str | None, photos: bool, images: Sequence[Path], tolerance: float
) -> None:
    """Compare MODEL with its graph, or with another model, on photographs or random inputs."""
    from torch_dag_core.analysis.comparing import compare_module_outputs
    from torch_dag_core.cli.graph_calls import random_arguments

    with console().status(f"converting {choice.reference}"):
        model = choice.model()
        graph = choice.graph(model)
        reference = dataclasses.replace(choice, reference=against or "", arguments=(), weights=None, pretrained=False)
        other = graph if against is None else reference.model()
    paths = [*images, *(shipped_photographs() if photos else [])]
    inputs = choice.placed(_photographs(graph, paths)) if paths else choice.inputs() or random_arguments(graph)
    what = f"{len(paths)} photographs" if paths else "random inputs"
    with console().status(f"running both on {what}"), step(f"running both on {what}"):
        comparison = compare_module_outputs(model, other, inputs, tolerance=tolerance)
    say(f"{choice.reference} against {against or 'its graph'} on {what}, {_sizes(inputs)}")
    say("equal bit for bit" if comparison.equal else str(comparison))
    first = comparison.first
    answer(
        model=choice.reference, against=against, inputs=what, equal=comparison.equal, absolute=comparison.absolute,
        relative=comparison.relative, tolerance=tolerance, first_difference=None if first is None else first.name,
    )  # fmt: skip
    if not comparison.relative <= tolerance:
        message = f"the results differ by {comparison.relative:.3g} of the largest, more than --tolerance {tolerance:g}"
        raise DifferenceError(message)


def _photographs(graph: DagModule, paths: Sequence[Path]) -> Tensor:
    """Return photographs of the size that the graph takes.

    Raises:
        InputError: it does not take one image of three colours.
    """
    shapes = [spec.example_shape for spec in graph.input_spec.tensors]
    shape = shapes[0] if len(shapes) == 1 else None
    if shape is None or len(shape) != 4 or shape[1] != 3:
        message = f"photographs suit models of one input (batch, 3, height, width), this one takes {shapes}"
        raise InputError(message)
    return read_images(paths, shape[-2:])


def _sizes(inputs: Any) -> str:
    from torch import Tensor

    from torch_dag_core.graph.structure import pack

    tensors: list[Tensor] = []
    pack(inputs, lambda value: isinstance(value, Tensor), tensors)
    return ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)


_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def shipped_photographs() -> list[Path]:
    """Return the colour photographs that come with scikit-image.

    Raises:
        ModelReferenceError: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        message = "--photos needs scikit-image: pip install scikit-image, or name files with --images"
        raise ModelReferenceError(message) from error
    return [Path(skimage.data.__file__).parent / name for name in _PHOTOGRAPHS]


def read_images(paths: Sequence[Path], size: Sequence[int]) -> Tensor:
    """Return images (number, 3, height, width), resized and normalised with the mean and deviation of ImageNet.

    Args:
        paths: The image files.
        size: Height and width in pixels.

    Raises:
        ModelReferenceError: Pillow is not installed, or a file cannot be read as an image.
    """
    import torch

    try:
        from PIL import Image
    except ImportError as error:
        message = "reading images needs Pillow: pip install Pillow"
        raise ModelReferenceError(message) from error
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    height, width = size
    pixels = []
    for path in paths:
        try:
            with Image.open(path) as image:
                content = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR).tobytes()
        except OSError as error:
            message = f"cannot read the image {str(path)!r}: {error}"
            raise ModelReferenceError(message) from error
        raw = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(height, width, 3)
        pixels.append((raw.permute(2, 0, 1) / 255 - mean) / deviation)
    return torch.stack(pixels)
