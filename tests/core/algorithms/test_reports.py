"""Reports as data and as text."""

from __future__ import annotations

from torch_dag_core.algorithms.reports import Candidate, CompressionReport, Skipped


def report(**changes):
    candidates = (
        Candidate(name="a", kind="layer", flops=1_000, removable=400),
        Candidate(name="longer", kind="layer", flops=20, removable=20),
    )
    given = {
        "algorithm": "sample", "flops": 2_000, "reachable_flops": 1_580, "candidates": candidates,
        "skipped": (Skipped("b", 980, "nobody described it"),), **changes,
    }  # fmt: skip
    return CompressionReport(**given)


def test_the_bound_is_a_share():
    assert report().removable_share == 0.21
    assert report(flops=0, reachable_flops=0).removable_share == 0


def test_a_report_prints_as_a_table():
    assert str(report()).splitlines() == [
        "sample: 2 candidates, 2,000 FLOPs, at most 21.00% of them can go",
        "candidate  kind   FLOPs  removable",
        "a          layer  1,000     20.00%",
        "longer     layer     20      1.00%",
        "left as it is: b (49.00%): nobody described it",
    ]


def test_an_empty_report_prints_its_head():
    assert str(report(candidates=(), skipped=(), reachable_flops=2_000)) == (
        "sample: 0 candidates, 2,000 FLOPs, at most 0.00% of them can go"
    )
