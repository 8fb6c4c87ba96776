"""``python -m downstream STEP FILE``: one step of a day's work, its findings as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from torch_dag_core.algorithms.algorithm import algorithms, find_algorithm
from torch_dag_core.cli.references import load_model
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.loading import default_registry, list_plugins


def inputs() -> torch.Tensor:
    """Return what every step runs on."""
    return torch.linspace(-4, 4, 24).view(4, 6)


def outputs(model: torch.nn.Module) -> list[list[float]]:
    """Return the scores for `inputs`."""
    with torch.no_grad():
        result: list[list[float]] = model.eval()(inputs()).tolist()
    return result


def convert(path: str) -> dict[str, Any]:
    """Convert a model that a plugin builds, with inputs that it offers, and save it."""
    torch.manual_seed(0)
    model = load_model("acme:net", ["width=8"])
    dag = build_from_unstructured_module(model)
    dag.save(path)
    registry = default_registry()
    ops = [registry.for_module(vertex.module) for vertex in dag.inner_vertices]
    return {"model": outputs(model), "dag": outputs(dag), "ops": [spec and spec.key for spec in ops]}


def load(path: str) -> dict[str, Any]:
    """Load a saved graph."""
    try:
        return {"dag": outputs(DagModule.load(path))}
    except SerializationError as error:
        return {"error": str(error), "imported": [name for name in sys.modules if name.startswith("acme")]}


def compress(path: str) -> dict[str, Any]:
    """Run an algorithm that a plugin offers."""
    dag = DagModule.load(path)
    algorithm = find_algorithm("acme-rounding").start(dag, steps=1)
    report = algorithm.analyze()
    rounded = algorithm.finalize()
    weights = {name: weight.tolist() for name, weight in rounded.state_dict().items() if name.endswith("weight")}
    return {"candidates": [candidate.name for candidate in report.candidates], "weights": weights}


def prune(path: str) -> dict[str, Any]:
    """Remove channels by a criterion of a plugin, from ops of a plugin, with proof."""
    from torch_dag_pruning.analysis.analysis import analyze
    from torch_dag_pruning.cut import remove_channels
    from torch_dag_pruning.plan.plan import Plan

    dag = DagModule.load(path)
    analysis = analyze(dag, inputs())
    plan = Plan.by_importance(analysis, "acme-largest", keep_flops=0.6)
    pruned = remove_channels(dag, plan, verify=True, analysis=analysis)
    pruned.save(f"{path}.pruned.safetensors")
    return {
        "orbits": [orbit.n for orbit in analysis.orbits],
        "shapes": {name: list(value.shape) for name, value in pruned.state_dict().items()},
        "dag": outputs(pruned),
    }


def installed(path: str) -> dict[str, Any]:
    """List what is installed and whether it takes part."""
    del path
    default_registry()
    return {
        "algorithms": sorted(algorithms()),
        "plugins": {info.name: f"{info.distribution} {info.version} {info.error}" for info in list_plugins()},
    }


STEPS: dict[str, Callable[[str], dict[str, Any]]] = {
    "convert": convert, "load": load, "compress": compress, "prune": prune, "installed": installed,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](sys.argv[2])))
