"""What is the best use of a number of training steps on Fashion-MNIST: pruning at once and fine-tuning, or learning?

    python benchmarks/fashion_mnist_training.py --root DATA --base weights.pt [--steps 500] [--out log.jsonl]

The trained network of `fashion_mnist.py` is pruned to shares of its FLOPs, and each way to prune gets the same number
of steps with the same batches, learning rates and losses. One line is written for each run, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from fashion_mnist import accuracy, augmented, base_model, tensors
from torch.nn import functional as F

import torch_dag_core as td
import torch_dag_pruning as tdp

BATCH = 128


def at_once(criterion, **choice):
    """Prune at once, repair, and fine-tune."""

    def start(dag, share, steps, calibration):
        settings = {"keep_flops": share, "criterion": criterion, "verify": False, **choice}
        algorithm = tdp.OneShotChannelPruning(dag, None, **settings)
        algorithm.calibrate(calibration)
        return Fixed(algorithm.finalize())

    return start


class Fixed:
    """A pruned network in the place of an algorithm that still learns."""

    def __init__(self, network):
        self.network = network

    def attach(self, optimizer):
        """Nothing will change."""

    def loss(self):
        return 0.0

    def step(self):
        return False

    def finalize(self):
        return self.network


def learned(mode, **settings):
    """Learn which channels go."""

    def start(dag, share, steps, calibration):
        algorithm = tdp.LearnedChannelPruning(
            dag, None, keep_flops=share, training_steps=steps, mode=mode, verify=False, **settings
        )
        algorithm.calibrate(calibration)
        algorithm.prepare()
        return algorithm

    return start


WAYS = {
    "at once": at_once("l2"),
    "at once, not repaired": at_once("l2", recover="none"),
    "ranked": learned("ranked"),
    "ranked, not repaired": learned("ranked", recover="none"),
    "default": learned("default"),
}


def train(algorithm, teacher, data, args, seed):
    """Train for ``args.steps`` steps: cross entropy, and the teacher's logits where ``args.distill`` says so."""
    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    algorithm.network.train()
    optimizer = torch.optim.SGD(
        algorithm.network.parameters(), args.rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    algorithm.attach(optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=args.steps, pct_start=0.1)
    for _ in range(args.steps):
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        x = augmented(images[chosen])
        logits = algorithm.network(x)
        loss = F.cross_entropy(logits, labels[chosen])
        if args.distill:
            loss = loss + softened(logits, teacher, x)
        optimizer.zero_grad()
        (loss + algorithm.loss()).backward()
        optimizer.step()
        schedule.step()
        algorithm.step()
    return algorithm.finalize().eval()


def softened(logits, teacher, x, temperature=2.0):
    """Return the divergence from the teacher's softened probabilities, scaled by the squared temperature."""
    with torch.no_grad():
        wanted = F.log_softmax(teacher(x) / temperature, 1)
    given = F.log_softmax(logits / temperature, 1)
    return temperature**2 * F.kl_div(given, wanted, log_target=True, reduction="batchmean")


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of torchvision's FashionMNIST")
    parser.add_argument("--base", help="files with trained weights, BASE.SEED; written where they do not exist")
    parser.add_argument("--epochs", type=int, default=8, help="of the training of the base, if it is missing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.25, 0.1])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--distill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--test", type=int, default=10_000, help="how many test images are used")
    parser.add_argument("--out", help="file to which one line of JSON is appended for each run")
    return parser.parse_args()


def main():
    args = parsed()
    data = tensors(args.root, train=True)
    test = [tensor[: args.test] for tensor in tensors(args.root, train=False)]
    for seed in args.seeds:
        model = base_model(args, seed, *data)
        chosen = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))[: args.samples]
        calibration = list(data[0][chosen].split(256))
        dag = td.build_from_unstructured_module(model.eval(), data[0][:2])
        whole = tdp.analyze(dag).cost()
        print(f"seed {seed}: base {accuracy(model, *test):.2f} %", flush=True)
        for share in args.shares:
            for way in args.ways:
                start = time.perf_counter()
                pruned = train(WAYS[way](dag, share, args.steps, calibration), model, data, args, seed)
                row = {
                    "way": way, "share": share, "seed": seed, "steps": args.steps, "distill": args.distill,
                    "rate": args.rate, "reached": round(tdp.analyze(pruned).cost() / whole, 4),
                    "accuracy": round(accuracy(pruned, *test), 2), "seconds": round(time.perf_counter() - start, 1),
                }  # fmt: skip
                print(json.dumps(row), flush=True)
                if args.out:
                    with Path(args.out).open("a") as file:
                        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
