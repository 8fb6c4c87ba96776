"""Learned pruning in plain PyTorch, on one process or several: ``torchrun --nproc-per-node 2 plain_pytorch.py``."""

from __future__ import annotations

import os

import torch
from small_network import data, pruning
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import torch_dag_core as td

STEPS = 8


def wrapped(network: td.DagModule) -> torch.nn.Module:
    """Return the network, for several processes in a wrapper that averages gradients."""
    return DistributedDataParallel(network) if distributed.is_initialized() else network


def main() -> td.DagModule:
    """Train and return the pruned graph."""
    if "LOCAL_RANK" in os.environ:
        distributed.init_process_group("gloo")
    images = data()
    sampler = DistributedSampler(images) if distributed.is_initialized() else None
    learning = pruning(STEPS)
    learning.prepare().train()
    optimizer = torch.optim.AdamW(learning.network.parameters(), 1e-2)
    learning.attach(optimizer)
    model = wrapped(learning.network)
    batches = [batch for _ in range(2) for batch in DataLoader(images, 8, sampler=sampler)]
    for inputs, labels in batches[:STEPS]:
        loss = cross_entropy(model(inputs), labels) + learning.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if learning.step():
            model = wrapped(learning.network)
    pruned = learning.finalize()
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return pruned


if __name__ == "__main__":
    print(main())
