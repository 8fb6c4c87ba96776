"""Learned pruning as a training task of timm, with averaged weights."""

from __future__ import annotations

import torch
from small_network import loader, pruning
from timm.task import ClassificationTask
from torch import nn

import torch_dag_core as td
from torch_dag_training import PrunableNetwork
from torch_dag_training.with_timm import PruningTask

STEPS = 8


def started() -> tuple[PruningTask, torch.optim.Optimizer]:
    """Return the task and its optimizer."""
    network = PrunableNetwork(pruning(STEPS))
    task = PruningTask(ClassificationTask(network, nn.CrossEntropyLoss(), verbose=False), network)
    optimizer = torch.optim.AdamW(task.get_trainable_module().parameters(), 1e-2)
    task.attach(optimizer)
    return task, optimizer


def train(task: PruningTask, optimizer: torch.optim.Optimizer, batches) -> None:
    """Train on some batches."""
    for images, labels in batches:
        task(images, labels)["loss"].backward()
        optimizer.step()
        task.step()
        optimizer.zero_grad()
        task.update_ema()


def result() -> td.DagModule:
    """Return the pruned graph."""
    task, optimizer = started()
    task.setup_ema(decay=0.5)
    train(task, optimizer, loader(samples=8 * STEPS))
    return task.network.pruning.finalize()


if __name__ == "__main__":
    print(result())
