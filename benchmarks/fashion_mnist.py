"""What pruning costs in accuracy on Fashion-MNIST, with and without recovery, and without any training after the cut.

    python benchmarks/fashion_mnist.py --root DATA [--base weights.pt] [--seeds 0] [--epochs 8]

DATA is the folder that torchvision's ``FashionMNIST(root=DATA)`` reads; nothing is downloaded. A small ResNet (three
stages of 24, 48 and 96 channels, 174,000 parameters) is trained, or loaded from ``--base`` if that file exists, and
pruned to shares of its FLOPs. Recovery sees 1,024 training images without labels; criteria that need gradients see the
labels of the same images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import torch_dag_core as td
import torch_dag_pruning as tdp

SHARES = (0.5, 0.25, 0.1)
CRITERIA = (  # name, scope, what scores are divided by
    ("l1", "local", None), ("l2", "global", None), ("l2", "isomorphic", None), ("l2_fisher", "global", "flops"),
    ("obs", "local", None), ("random", "local", None),
)  # fmt: skip


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.short = None
        if stride > 1 or i != o:
            self.short = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.short is None else self.short(x)))


class ResNet(nn.Module):
    def __init__(self, widths=(24, 48, 96)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        ins = (widths[0], *widths)
        self.blocks = nn.Sequential(
            *(Block(i, o, 1 + (n > 0)) for n, (i, o) in enumerate(zip(ins, widths, strict=False)))
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def tensors(root, train):
    from torchvision.datasets import FashionMNIST

    data = FashionMNIST(root=root, train=train, download=False)
    return (data.data[:, None].float() / 255 - 0.286) / 0.353, data.targets


def augmented(images):
    flip = torch.rand(len(images)) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    dy, dx = torch.randint(0, 5, (2,)).tolist()
    return F.pad(images, (2, 2, 2, 2), value=-0.81)[:, :, dy : dy + 28, dx : dx + 28]


def train(model, images, labels, epochs, batch=128, rate=0.1):
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train().to(memory_format=torch.channels_last)
    for epoch in range(epochs):
        order, start = torch.randperm(len(images)), time.time()
        for at in range(0, len(images) - batch + 1, batch):
            chosen = order[at : at + batch]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(augmented(images[chosen]).to(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}: loss {loss:.3f}, {time.time() - start:.0f} s", flush=True)
    return model.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def accuracy(model, images, labels):
    hits = [(model(x).argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return 100 * float(sum(hits)) / len(images)


def base_model(args, seed, images, labels):
    torch.manual_seed(seed)
    model = ResNet()
    path = args.base and Path(f"{args.base}.{seed}")
    if path and path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    train(model, images, labels, args.epochs)
    if path:
        torch.save(model.state_dict(), path)
    return model


def loss(logits, batch):
    return F.cross_entropy(logits, batch[1], reduction="none")


class Trial:
    """One trained model with calibration data, pruned in many ways."""

    def __init__(self, model, images, labels, samples, seed):
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:samples]
        self.batches = list(zip(images[chosen].split(256), labels[chosen].split(256), strict=True))
        self.dag = td.build_from_unstructured_module(model, images[:2]).eval()
        self.analysis = tdp.analyze(self.dag, images[:2])
        self.statistics = tdp.Statistics.collect(self.analysis, self.batches, loss=loss)

    def pruned(self, criterion, share):
        """Return the graphs without and with recovery, and the seconds that recovery took."""
        name, scope, per = criterion
        choice = {"statistics": self.statistics, "scope": scope, "per": per}
        cut = tdp.Cut(self.analysis, tdp.Plan.by_importance(self.analysis, name, share, **choice))
        removed = cut.removed()
        cut.prove(removed)
        start = time.perf_counter()
        recovery = cut.recover(removed, self.batches)
        return removed, recovery.dag, time.perf_counter() - start


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of torchvision's FashionMNIST")
    parser.add_argument("--base", help="files with trained weights, BASE.SEED; written where they do not exist")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--test", type=int, default=10_000, help="how many test images are used")
    return parser.parse_args()


def main():
    args = parsed()
    images, labels = tensors(args.root, train=True)
    test = [tensor[: args.test] for tensor in tensors(args.root, train=False)]
    for seed in args.seeds:
        model = base_model(args, seed, images, labels)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"seed {seed}: base {accuracy(model, *test):.2f} %, {parameters:,} parameters")
        trial = Trial(model, images, labels, args.samples, seed)
        print(f"{'criterion':28}" + "".join(f"{share:>8.0%} FLOPs" + " " * 12 for share in SHARES))
        for criterion in CRITERIA:
            row = [trial.pruned(criterion, share) for share in SHARES]
            cells = [f"{accuracy(a, *test):6.2f} -> {accuracy(b, *test):5.2f} ({took:4.1f} s)" for a, b, took in row]
            name = " ".join(str(part) for part in criterion if part)
            print(f"{name:28}" + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
