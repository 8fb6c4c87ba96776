"""What was done to a graph, as an entry of its provenance that a file can hold: plans, costs, proofs and repairs.

The entries hold no times and no names of machines, so that equal graphs give equal files, and a bounded number of
orbits and layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import torch

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.discovery import distribution_version
from torch_dag_pruning.analysis.analysis import Analysis, analyze
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.proof import Proof

REMOVALS: Final = "removals"
"""Entry of a graph's provenance: a tuple with one dictionary for each removal of slots, the latest last."""
RECOVERY: Final = "recovery"
"""Entry of a graph's provenance: how its weights were repaired after the last removal."""
MOST_NAMES: Final = 500
"""How many orbits or layers an entry lists."""
MOST_REMOVALS: Final = 20
"""How many removals are remembered."""


def note_removal(removed: DagModule, analysis: Analysis, plan: Plan) -> None:
    """Add an entry about a plan that was carried out to the provenance of the graph that it left.

    A repair that was noted before is dropped, because it was of the weights of another graph.
    """
    entry = {
        "plan": _plan(plan),
        "inputs": tuple(tuple(tensor.shape) for tensor in analysis._sizes),
        "costs": _costs(removed, analysis, plan),
        "versions": _versions(),
    }
    kept = {key: value for key, value in removed.provenance.items() if key not in (REMOVALS, RECOVERY)}
    earlier = tuple(removed.provenance.get(REMOVALS, ()))
    removed.provenance = {**kept, REMOVALS: (*earlier, entry)[-MOST_REMOVALS:]}


def note_proof(removed: DagModule, plan: Plan, proof: Proof) -> None:
    """Add a proof to the entry about the removal that it is of; without such an entry, do nothing."""
    *earlier, last = removed.provenance.get(REMOVALS, ()) or (None,)
    if last is None or last["plan"]["sha256"] != digest(plan):
        return
    described = {
        "dtype": str(proof.dtype).removeprefix("torch."),
        "worst": proof.worst,
        "vertex": proof.vertex,
        "vertices": proof.vertices,
        "equal": proof.equal,
        "effect": proof.effect,
    }
    removed.provenance = {**removed.provenance, REMOVALS: (*earlier, {**last, "proof": described})}


def note_recovery(repaired: DagModule, record: Mapping[str, Any]) -> None:
    """Put what a repair did into the provenance of the repaired graph."""
    repaired.provenance = {**repaired.provenance, RECOVERY: dict(record)}


def first_names(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first `MOST_NAMES` entries."""
    return dict(list(entries.items())[:MOST_NAMES])


def digest(plan: Plan) -> str:
    """Return the SHA-256 of a plan's sizes and kept slots, which tells plans apart."""
    text = json.dumps([[key, plan.sizes[key], plan.kept[key]] for key in plan.kept], separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plan(plan: Plan) -> dict[str, Any]:
    """Return a digest, and how many slots are left of how many in each orbit that lost some."""
    changed = {key: (len(slots), plan.sizes[key]) for key, slots in plan.kept.items() if len(slots) < plan.sizes[key]}
    return {"sha256": digest(plan), "orbits": len(plan.kept), "changed": len(changed), "widths": first_names(changed)}


def _costs(removed: DagModule, analysis: Analysis, plan: Plan) -> dict[str, tuple[int, int]]:
    """Return FLOPs of one sample and parameters, before and after.

    The analysis predicts them, except where an empty orbit deleted vertices.
    """
    counts, after = plan.atom_counts(analysis), analysis
    if not all(counts.values()):
        counts, after = {}, analyze(removed, analysis._example_inputs, registry=analysis.registry)
    return {
        "flops": (_whole(analysis.cost()), _whole(after.cost(counts))),
        "parameters": (_whole(analysis.parameters_count()), _whole(after.parameters_count(counts))),
    }


def _whole(number: Any) -> int:
    return round(float(number))


def _versions() -> dict[str, str]:
    ours = {name: distribution_version(name) for name in ("torch-dag-core", "torch-dag-pruning")}
    return {**ours, "torch": str(torch.__version__)}
