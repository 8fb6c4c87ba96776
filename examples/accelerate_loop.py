"""Learned pruning with accelerate: ``accelerate launch accelerate_loop.py``."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from small_network import loader, pruning
from torch.nn.functional import cross_entropy

import torch_dag_core as td
from torch_dag_training.with_accelerate import AcceleratedPruning

STEPS = 8


def train(accelerator: Accelerator, learning: AcceleratedPruning, optimizer, batches) -> None:
    """Train on some batches."""
    for images, labels in batches:
        with accelerator.accumulate(learning.model):
            loss = cross_entropy(learning.model(images), labels) + learning.loss()
            accelerator.backward(loss)
            optimizer.step()
            learning.step()
            optimizer.zero_grad()


def started(accelerator: Accelerator) -> tuple[AcceleratedPruning, torch.optim.Optimizer]:
    """Return the prepared pruning and its optimizer."""
    learning = AcceleratedPruning(accelerator, pruning(STEPS))
    return learning, learning.prepare(torch.optim.AdamW(learning.parameters(), 1e-2))


def result() -> td.DagModule:
    """Return the pruned graph."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    learning, optimizer = started(accelerator)
    batches = accelerator.prepare(loader(samples=2 * STEPS * 8 * accelerator.num_processes))
    train(accelerator, learning, optimizer, batches)
    pruned = learning.network.pruning.finalize()
    accelerator.wait_for_everyone()  # a process that leaves early takes the connections of the others along
    accelerator.end_training()
    return pruned


if __name__ == "__main__":
    print(result())
