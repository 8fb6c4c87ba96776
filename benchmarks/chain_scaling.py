"""Measure that the work grows with the length of a model, not with its square: convert, verify, run, save, load.

Prints the seconds of each step for chains of doubling length, and how much each doubling multiplies them by.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from torch_dag_core import build_from_unstructured_module, flops, load
from torch_dag_core.plugins.loading import default_registry

LIMIT = 2.6


def chain(length: int) -> nn.Module:
    """Return that many layers in a row; every other one has no parameters."""
    return nn.Sequential(*(nn.ReLU() if i % 2 else nn.Linear(4, 4) for i in range(length)))


@contextmanager
def timed(times: dict[str, float], step: str) -> Iterator[None]:
    """Store the seconds that a block takes."""
    start = time.perf_counter()
    yield
    times[step] = time.perf_counter() - start


def steps(length: int) -> dict[str, float]:
    """Return the seconds of every step for one chain."""
    times: dict[str, float] = {}
    model, x = chain(length), torch.randn(2, 4)
    with timed(times, "convert"):
        dag = build_from_unstructured_module(model, x)
    with timed(times, "verify"):
        dag.verify()
    with timed(times, "first run"):
        dag(x)
    with timed(times, "count FLOPs"):
        flops(dag)
    with timed(times, "copy"):
        dag.clone()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.safetensors"
        with timed(times, "save"):
            dag.save(path)
        with timed(times, "load"):
            load(path)
    return times


def least(work: Callable[[], dict[str, float]], rounds: int) -> dict[str, float]:
    """Return the least seconds of every step over several rounds; noise only adds."""
    runs = [work() for _ in range(rounds)]
    return {step: min(run[step] for run in runs) for step in runs[0]}


def main() -> None:
    """Print one line a length and step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longest", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    default_registry()
    steps(8)
    before: dict[str, float] = {}
    for length in (options.longest // 4, options.longest // 2, options.longest):
        times = least(lambda: steps(length), options.rounds)  # noqa: B023
        for step, seconds in times.items():
            growth = f"  x{seconds / before[step]:.2f} for twice the length (limit {LIMIT})" if step in before else ""
            print(f"{length:6d} vertices  {step:12s} {seconds:8.4f} s{growth}", flush=True)
        before = times


if __name__ == "__main__":
    main()
