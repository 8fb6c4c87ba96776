"""Measure how much faster a network is at half of its FLOPs: shares of the time and of the FLOPs on this machine.

Both networks run in turns on the same inputs; printed is the median of the ratios of neighbouring runs, so that what
disturbs both cancels. Weights are random, since time does not depend on them.
"""

from __future__ import annotations

import argparse

import torch
from forward_cost import run, time_ratio
from models import build

import torch_dag_core as td
import torch_dag_pruning as tdp

NAMES = ("resnet50", "mobilenetv3_large_100", "vit_tiny_patch16_224", "convnextv2_atto")
LIMIT = 0.1


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(NAMES))
    parser.add_argument("--keep-flops", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--multiple-of", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        model, images = build(name, options.batch)
        whole = td.build_from_unstructured_module(model, images[:2]).eval()
        settings = {"keep_flops": options.keep_flops, "multiple_of": options.multiple_of}
        small = tdp.OneShotChannelPruning(whole, None, verify=False, **settings).finalize().eval()
        for dag in (whole, small):
            run(dag, images)
        time = time_ratio(whole, small, images, options.rounds)
        flops = float(tdp.analyze(small).cost() / tdp.analyze(whole).cost())
        verdict = "ok" if time <= flops + LIMIT else f"above FLOPs + {LIMIT}"
        print(f"{name:28s} FLOPs x{flops:.3f}  time x{time:.3f}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
