"""The models that `export_coverage.py` exports: the smallest of each module file of timm, and models of other kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import timm
import torch

import torch_dag_core as td
from torch_dag_core.cli.references import load_model
from torch_dag_core.conversion.convert import Modes


@dataclass(frozen=True)
class Subject:
    """A model to export.

    Attributes:
        kind: The module file of timm, or what the model is for.
        reference: As on the command line.
        arguments: For the callable that the reference names, as on the command line.
        shape: Of the example input; None leaves the choice to the model's plugin.
        modes: ``"eval"`` for models that draw in training which layers to run.
    """

    kind: str
    reference: str
    arguments: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    modes: Modes = "both"

    @property
    def name(self) -> str:
        """The reference with its arguments."""
        return " ".join((self.reference, *self.arguments))

    def graph(self) -> td.DagModule:
        """Build the model with random weights (seed 0), and convert it."""
        torch.manual_seed(0)
        model = load_model(self.reference, self.arguments).eval()
        example = None if self.shape is None else torch.randn(self.shape)
        return td.build_from_unstructured_module(model, example, modes=self.modes)


_IMAGE = (2, 3, 64, 64)
_LANGUAGE = (
    "albert", "bart", "bert", "bloom", "distilbert", "electra", "gemma", "gpt2", "gpt_neox", "llama", "mistral",
    "opt", "phi3", "qwen2", "qwen3", "roberta", "t5",
)  # fmt: skip
OTHERS = (
    *(
        Subject("detection", "ultralytics.nn.tasks:DetectionModel", (f"{name}.yaml", "verbose=false"), _IMAGE)
        for name in ("yolov5n", "yolov8n", "yolov10n", "yolo11n")
    ),
    Subject("segmentation", "ultralytics.nn.tasks:SegmentationModel", ("yolo11n-seg.yaml", "verbose=false"), _IMAGE),
    *(
        Subject("segmentation", f"segmentation_models_pytorch:{name}", ("resnet18", "encoder_weights=none"), _IMAGE)
        for name in ("Unet", "UnetPlusPlus", "FPN", "Linknet", "DeepLabV3Plus")
    ),
    Subject("segmentation", "torchvision:lraspp_mobilenet_v3_large", ("weights_backbone=none",), _IMAGE),
    Subject("segmentation", "torchvision:deeplabv3_mobilenet_v3_large", ("weights_backbone=none",), _IMAGE),
    Subject("segmentation", "transformers:segformer"),
    *(Subject("language", f"transformers:{name}") for name in _LANGUAGE),
    Subject("speech", "transformers:wav2vec2", modes="eval"),
    Subject("images and text", "transformers:clip"),
)
"""Models that are not in timm; those of transformers have small sizes."""


def smallest_of_timm(parameters: Mapping[str, int | None]) -> list[Subject]:
    """Return the smallest model of each module file of timm, the smallest of all first.

    Args:
        parameters: The number of parameters of each model; None for those that are left out.
    """
    known = sorted((count, name) for name, count in parameters.items() if count is not None)
    found: dict[str, str] = {}
    for _, name in known:
        found.setdefault(timm.models.model_entrypoint(name).__module__.rpartition(".")[2], name)
    return [Subject(module, f"timm:{name}") for module, name in found.items()]
