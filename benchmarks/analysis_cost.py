"""Measure what the pruning analysis takes beside Torch-Pruning's dependency graph and groups of the same model.

Prints, for each model, the least time of each over several rounds in turn (noise only adds) and their ratio; the median
of the ratios at the end. ``--chain`` measures that the work grows with the length of a model, not with its square.

    pip install torch-pruning==1.6.1 --no-deps
    python benchmarks/analysis_cost.py
    python benchmarks/analysis_cost.py resnet18 vit_tiny_patch16_224 --rounds 5
    python benchmarks/analysis_cost.py --chain
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import timm
import torch
import torch_pruning
from torch import nn

from torch_dag_core import DagModule, build_from_unstructured_module
from torch_dag_core.plugins.loading import default_registry
from torch_dag_pruning import analyze

LIMIT, LIMIT_OF_ONE = 0.10, 0.20
LIMIT_OF_DOUBLING = 2.6
MODELS = (
    "resnet18", "resnet50", "densenet121", "vit_tiny_patch16_224", "convnextv2_atto", "efficientnet_b0",
    "mobilenetv3_small_050",
)  # fmt: skip


def seconds(work: Callable[..., object], *args: object) -> float:
    """Return the processor time of one call, which other work on the machine does not change."""
    start = time.process_time()
    work(*args)
    return time.process_time() - start


def groups(model: nn.Module, images: torch.Tensor) -> int:
    """Build Torch-Pruning's graph and all of its groups, and return their number."""
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=images)
    return len(list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear])))


def orbits(dag: DagModule) -> int:
    """Analyse the graph and return the number of its orbits."""
    return len(analyze(dag).orbits)


def compare(names: list[str], rounds: int) -> None:
    """Print one line a model, and the median of the ratios."""
    ratios = []
    for name in names:
        model, images = timm.create_model(name).eval(), torch.randn(1, 3, 224, 224)
        dag = build_from_unstructured_module(model, images)
        pairs = [(seconds(orbits, dag), seconds(groups, model, images)) for _ in range(rounds)]
        ours, theirs = (min(times) for times in zip(*pairs, strict=True))
        ratios.append(ours / theirs)
        times = f"analysis {ours:7.4f} s  Torch-Pruning {theirs:7.4f} s"
        print(f"{name:24s} {times}  ratio {ours / theirs:.3f} (limit {LIMIT_OF_ONE})", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (limit {LIMIT})")


def chain(length: int) -> DagModule:
    """Return that many layers in a row; every other one has no parameters."""
    layers = (nn.ReLU() if i % 2 else nn.Linear(4, 4) for i in range(length))
    return build_from_unstructured_module(nn.Sequential(*layers), torch.randn(2, 4))


def grow(rounds: int) -> None:
    """Print the least time for chains of doubling length, and what each doubling multiplies it by."""
    before = 0.0
    for length in (2500, 5000, 10000, 20000):
        dag = chain(length)
        now = min(seconds(orbits, dag) for _ in range(rounds))
        factor = f"  x{now / before:.2f} for twice the length (limit {LIMIT_OF_DOUBLING})" if before else ""
        print(f"{length:6d} vertices {now:8.4f} s{factor}", flush=True)
        before = now


def main() -> None:
    """Compare with Torch-Pruning, or measure growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chain", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    default_registry()
    if options.chain:
        grow(options.rounds)
    else:
        compare(options.models, options.rounds)


if __name__ == "__main__":
    main()
