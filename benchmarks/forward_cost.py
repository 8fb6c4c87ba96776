"""Measure what a call of a graph costs beside a call of its source: time and peak memory, evaluation and training.

Both run in turns on the same inputs; printed are the median of the ratios of neighbouring runs (what disturbs both
cancels), and the ratio of the peaks of allocated memory.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from models import MODELS, build
from torch import nn
from torch.profiler import ProfilerActivity, profile

from torch_dag_core import build_from_unstructured_module

TIME_LIMIT, MEMORY_LIMIT = 1.02, 1.0


def run(model: nn.Module, images: torch.Tensor) -> None:
    """One inference, or one forward and backward in training."""
    if not model.training:
        with torch.no_grad():
            model(images)
        return
    outputs = model(images)
    first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    first.sum().backward()
    model.zero_grad()


def seconds(model: nn.Module, images: torch.Tensor) -> float:
    """Return how long one run takes."""
    start = time.perf_counter()
    run(model, images)
    return time.perf_counter() - start


def time_ratio(model: nn.Module, dag: nn.Module, images: torch.Tensor, rounds: int) -> float:
    """Return the median of graph over model, the order changing from round to round."""
    ratios = []
    for turn in range(rounds):
        pair = (model, dag) if turn % 2 else (dag, model)
        times = {module: seconds(module, images) for module in pair}
        ratios.append(times[dag] / times[model])
    return statistics.median(ratios)


def peak(model: nn.Module, images: torch.Tensor) -> int:
    """Return the highest sum of bytes that one run holds at a time, from the allocator's own record."""
    run(model, images)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run(model, images)
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def main() -> None:
    """Print one line a model and mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        model, images = build(name, options.batch)
        dag = build_from_unstructured_module(model, images)
        for training in (False, True):
            both = [copy.deepcopy(module).train(training) for module in (model, dag)]
            batch = images if not training else torch.cat([images, images])
            for module in both:
                run(module, batch)
            ratio = time_ratio(*both, batch, options.rounds)
            memory = peak(both[1], batch) / peak(both[0], batch)
            mode = "training" if training else "evaluation"
            cost = f"time x{ratio:.3f} (limit {TIME_LIMIT})  peak memory x{memory:.3f} (limit {MEMORY_LIMIT})"
            print(f"{name:28s} {mode:10s} {cost}", flush=True)


if __name__ == "__main__":
    main()
