"""What pruning adds to the coverage command: what can be removed, what is in the way, and a proven random removal."""

from __future__ import annotations

import warnings
from typing import Any

from torch_dag_core.cli.coverage.check import CoverageCheck, Subject
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.errors import PruningWarning
from torch_dag_pruning.plan.plan import Plan

_KEPT_SLOTS = 0.5
_SEED = 0
_MOST_LOCKS = 5


def channels(subject: Subject) -> dict[str, Any]:
    """Return the share of FLOPs that can be removed, and the vertices and reasons that lock most of the rest."""
    analysis = analyze(subject.dag)
    now = float(analysis.cost()) or 1.0
    locked = sorted(analysis.locked.items(), key=lambda item: -float(item[1]))
    return {
        "removable": analysis.removable_share,
        "orbits": len(analysis.orbits),
        "locked": [
            {"share": float(flops) / now, "vertex": cause.vertex, "reason": f"{cause.op}: {cause.reason}"}
            for cause, flops in locked[:_MOST_LOCKS]
        ],
        "floor": float(analysis.floor) / now,
    }


def cut(subject: Subject) -> dict[str, Any]:
    """Remove half of the slots of every orbit at random, and prove that this equals masking and costs as predicted.

    Without weights, only shapes, FLOPs and the number of parameters are compared with the predicted ones.

    Raises:
        RemovalError: an op cannot be made smaller.
        RemovalMismatchError: the removed graph differs from the masked one, or its cost from the prediction.
    """
    analysis = analyze(subject.dag)
    if not analysis.orbits:
        return {}
    carried_out = Cut(analysis, Plan.random(analysis, _KEPT_SLOTS, _SEED))
    removed = carried_out.removed()
    subject.keep("pruned", removed)
    left = float(analysis.cost(carried_out.plan.atom_counts(analysis))) / float(analysis.cost())
    if not subject.has_weights:
        carried_out.check_costs(removed)
        return {"flops_left": left}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)  # a removal that changes no output is proved all the same
        proof = carried_out.prove(removed)
    return {"masked_removed": proof.worst, "flops_left": left}


CHECKS = (CoverageCheck("channels", channels), CoverageCheck("cut", cut))
