"""Train one of two processes on its part of each batch, and save the results: ``worker.py FOLDER RANK SCENARIO``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning import LearnedChannelPruning, Statistics, analyze, shard_

SHAPE, STEPS, BATCH = (3, 8, 8), 8, 8


class Net(nn.Module):
    """A residual stream with a batch norm whose statistics are those of each process."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.inner, self.outer = nn.Conv2d(12, 10, 3, padding=1, bias=False), nn.Conv2d(10, 12, 3, padding=1)
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.head(self.last(x.mean((2, 3))))


def graph():
    torch.manual_seed(0)
    return build_from_unstructured_module(Net().eval(), torch.randn(2, *SHAPE))


def data():
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(BATCH, *SHAPE, generator=generator), torch.randint(4, (BATCH,), generator=generator))
        for _ in range(STEPS)
    ]


def part(tensor, rank, processes):
    return tensor.chunk(processes)[rank]


def started(mode, rank, processes, criterion="l2"):
    pruning = LearnedChannelPruning(graph(), SHAPE, 0.5, STEPS, mode=mode, freeze_at=0.5, criterion=criterion)
    pruning.calibrate([part(x, rank, processes) for x, _ in data()])
    pruning.prepare().train()
    optimizer = torch.optim.SGD(pruning.network.parameters(), 0.05, momentum=0.9)
    pruning.attach(optimizer)
    return pruning, optimizer


def without_batch_statistics(network):
    """Let batch norms compute as in evaluation, so that a batch in two parts gives the gradients of one in one part."""
    for module in network.modules():
        if "BatchNorm" in type(module).__name__:
            module.eval()


def train(pruning, optimizer, batches, wrap):
    model = wrap(pruning.network)
    for x, y in batches:
        if pruning.config.mode == "ranked":
            without_batch_statistics(pruning.network)
        loss = F.cross_entropy(model(x), y) + pruning.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if pruning.step():
            model = wrap(pruning.network)


def plain(state):
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in state.items()}


def result(pruning):
    if pruning.cut is not None:
        pruning.finalize()
    return {
        "plan": {key: list(slots) for key, slots in pruning.plan.kept.items()},
        "state": plain(pruning.network.state_dict()),
        "learned": pruning.state_dict()["learned"],
    }


def main(folder, rank, processes, first, last, *, load, mode):
    batches = [(part(x, rank, processes), part(y, rank, processes)) for x, y in data()]
    pruning, optimizer = started(mode, rank, processes, "l2" if mode == "ranked" else "fisher")
    if load:
        state = torch.load(next(folder.glob(f"{mode}_checkpoint_*.pt")), weights_only=True)
        pruning.load_state_dict(state["pruning"])
        pruning.network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    wrap = DistributedDataParallel if processes > 1 else lambda network: network
    train(pruning, optimizer, batches[first:last], wrap)
    torch.save(result(pruning), folder / f"{mode}_{processes}_{rank}_{last}{'_loaded' if load else ''}.pt")
    if rank == 0 and not load and last < STEPS:
        state = {"pruning": pruning.state_dict(), "network": pruning.network.state_dict()}
        torch.save({**state, "optimizer": optimizer.state_dict()}, folder / f"{mode}_checkpoint_{processes}.pt")


def statistics(folder, rank, processes):
    """Save the statistics of this process's data, and of those of all processes."""
    analysis = analyze(graph())
    own = Statistics.collect(analysis, [part(x, rank, processes) for x, _ in data()], loss="outputs")
    own.save(folder / f"own_{rank}.safetensors")
    own.over_processes().save(folder / f"all_{rank}.safetensors")


def sharded(folder, rank, processes):
    """Train under FSDP2, cut in the middle, shard again and go on."""
    batches = [(part(x, rank, processes), part(y, rank, processes)) for x, y in data()]
    pruning, optimizer = started("ranked", rank, processes)
    shard_(pruning.network, fully_shard, optimizer)
    for x, y in batches:
        without_batch_statistics(pruning.network)
        loss = F.cross_entropy(pruning.network(x), y) + pruning.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if pruning.step():
            shard_(pruning.network, fully_shard, optimizer)
        assert all(isinstance(p, DTensor) for p in pruning.network.parameters())
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        assert all(isinstance(each, DTensor) for each in momenta)
    final = pruning.finalize()
    assert not any(isinstance(p, DTensor) for p in final.parameters())
    torch.save({**result(pruning), "final": final.state_dict()}, folder / f"sharded_{rank}.pt")


def begin(folder, rank, processes, name):
    store = distributed.FileStore(str(folder / f"store_{name}"), processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, rank_, scenario = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    begin(where, rank_, 2, scenario)
    if scenario == "data_parallel":
        statistics(where, rank_, 2)
        for each in ("ranked", "default"):
            main(where, rank_, 2, 0, 2, load=False, mode=each)
            main(where, rank_, 2, 0, STEPS, load=False, mode=each)
    elif scenario == "resumed":
        main(where, rank_, 2, 2, STEPS, load=True, mode="ranked")
    else:
        sharded(where, rank_, 2)
    distributed.destroy_process_group()
