"""What pruning costs in accuracy on Fashion-MNIST, without training and with the same training for everyone.

    python -m benchmarks.fashion_mnist run --root DATA --bases FOLDER [--only "no training/resnet/0"] [--shard 1/2]
    python -m benchmarks.fashion_mnist report

`run` computes the rows that the file does not have yet; several processes may write to one file. `report` renders all
rows into docs/benchmarks.md and its plot. DATA is what torchvision's ``FashionMNIST(root=DATA)`` reads; nothing is
downloaded. Torch-Pruning's rows need `pip install torch-pruning==1.6.1`, the plot `pip install matplotlib`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .cases import QUESTIONS, SEEDS, Case, cases
from .networks import NETWORKS
from .report import report
from .training import BATCH, RECIPES, Data, Fixed, accuracy, read, train
from .ways import SCRATCH, Start

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "benchmarks" / "results" / "fashion_mnist.jsonl"


class Run:
    """The data, and the trained networks as they are needed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.data: Data = read(arguments.root, arguments.test)
        self._starts: dict[tuple[str, int], tuple[Start, float]] = {}

    def row(self, case: Case) -> dict[str, Any]:
        """Compute one row."""
        start, base = self.start(case.network, case.seed)
        torch.manual_seed(case.seed)
        began = time.process_time()
        steps = case.steps(self.arguments.tuning_epochs * self.epoch)
        algorithm = QUESTIONS[case.question][case.way](start, case.share, steps)
        recipe = RECIPES[case.network]
        teacher = start.network if case.distilled else None
        recipe = recipe if case.way in SCRATCH else recipe.for_tuning()
        network = train(algorithm, self.data, steps, recipe, case.seed, teacher)
        return {
            **vars(case), "accuracy": round(accuracy(network, self.data), 2), "base": round(base, 2),
            "flops": round(start.flops_share(network), 4), "steps": steps, "samples": self.arguments.samples,
            "processor_seconds": round(time.process_time() - began, 1), **circumstances(),
        }  # fmt: skip

    @property
    def epoch(self) -> int:
        return len(self.data.images) // BATCH

    def start(self, name: str, seed: int) -> tuple[Start, float]:
        """Return what to start from, and the accuracy of the trained network."""
        if (name, seed) not in self._starts:
            network = self.base(name, seed)
            start = Start.of(name, network, self.data, self.arguments.samples, seed)
            self._starts[name, seed] = start, accuracy(network, self.data)
        return self._starts[name, seed]

    def base(self, name: str, seed: int) -> nn.Module:
        """Return the trained network, from the folder of bases if it is there."""
        epochs, recipe = self.arguments.epochs, RECIPES[name]
        path = Path(self.arguments.bases) / f"{name}-{epochs}-{seed}.pt"
        torch.manual_seed(seed)
        network = NETWORKS[name]()
        if path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
            return network.eval()
        train(Fixed(network), self.data, epochs * self.epoch, recipe, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
        return network


def circumstances() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torch-dag-pruning", "torch-pruning")}
    return {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cores": os.cpu_count(), **versions}


def wanted(arguments: argparse.Namespace) -> list[Case]:
    """Return the cases that fit ``--only`` and ``--shard`` and that the file does not have."""
    part, parts = (int(number) for number in arguments.shard.split("/"))
    fitting = [case for case in cases(tuple(arguments.seeds)) if any(case.name.startswith(o) for o in arguments.only)]
    return [case for case in fitting[part - 1 :: parts] if case not in have(arguments.rows)]


def have(path: Path) -> set[Case]:
    return {Case.read(json.loads(line)) for line in path.read_text().splitlines()} if path.exists() else set()


def run(arguments: argparse.Namespace) -> None:
    """Compute what is wanted and append it to the file, row by row."""
    torch.set_num_threads(arguments.threads)
    todo = wanted(arguments)
    state = Run(arguments) if todo else None
    for case in todo:
        if state is None or case in have(arguments.rows):  # another process may have been faster
            continue
        row = state.row(case)
        arguments.rows.parent.mkdir(parents=True, exist_ok=True)
        with arguments.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(case.name, row["accuracy"], file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs, reports = commands.add_parser("run"), commands.add_parser("report")
    for command in (runs, reports):
        command.add_argument("--rows", type=Path, default=ROWS, help="file of the rows, one JSON object a line")
    runs.add_argument("--root", required=True, help="folder of torchvision's FashionMNIST")
    runs.add_argument("--bases", required=True, help="folder of trained networks; those that it lacks are trained")
    runs.add_argument("--only", nargs="+", default=[""], help="starts of QUESTION/NETWORK/SEED/WAY/SHARE")
    runs.add_argument("--shard", default="1/1", help="the part of the cases that is computed, such as 2/3")
    runs.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    runs.add_argument("--epochs", type=int, default=6, help="of the training of the networks")
    runs.add_argument("--tuning-epochs", type=int, default=4, help="of fine-tuning")
    runs.add_argument("--samples", type=int, default=1024, help="training images for calibration")
    runs.add_argument("--test", type=int, help="how many test images are used; all by default")
    runs.add_argument("--threads", type=int, default=1)
    reports.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    reports.add_argument("--plot", type=Path, default=ROOT / "docs" / "fashion-mnist.svg")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command line."""
    options = parsed(arguments)
    if options.command == "run":
        run(options)
    else:
        report([json.loads(line) for line in options.rows.read_text().splitlines()], options.page, options.plot)


if __name__ == "__main__":
    main()
