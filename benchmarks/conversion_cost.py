"""Measure what a conversion takes beside ``torch.export.export`` of the same model.

Prints, for each model, the least time of each over several rounds (noise only adds) and their ratio; the median of
the ratios at the end.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from models import MODELS, build
from torch import nn

from torch_dag_core import build_from_unstructured_module
from torch_dag_core.plugins.loading import default_registry

LIMIT = 0.5


def seconds(work: Callable[..., object], *args: object) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def export(model: nn.Module, images: torch.Tensor) -> object:
    """Export with a free batch, which is what a conversion gives."""
    return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))


def main() -> None:
    """Print one line a model, and the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    default_registry()
    ratios = []
    for name in options.models:
        model, images = build(name)
        pairs = [
            (seconds(build_from_unstructured_module, model, images), seconds(export, model, images))
            for _ in range(options.rounds)
        ]
        ours, theirs = (min(times) for times in zip(*pairs, strict=True))
        ratios.append(ours / theirs)
        times = f"conversion {ours:7.3f} s  torch.export {theirs:7.3f} s"
        print(f"{name:28s} {times}  ratio {ours / theirs:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
