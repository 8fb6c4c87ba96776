"""Learned pruning within what training loops do: gradient accumulation, loss scaling, autocast and compilation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning import LearnedChannelPruning, analyze

SHAPE, STEPS = (3, 8, 8), 6
# The compiler looks at .grad of masks, which are no leaves, and hides the warning itself; as an error it escapes.
compiles = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@pytest.fixture
def dag():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.ReLU(), nn.Flatten(), nn.Linear(160, 4)
    )
    return build_from_unstructured_module(net, torch.randn(2, *SHAPE))


def batches(count=STEPS):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, *SHAPE, generator=generator), torch.randint(4, (8,), generator=generator)) for _ in range(count)
    ]


def started(dag, scaler=None, **settings):
    pruning = LearnedChannelPruning(dag, SHAPE, 0.5, STEPS, freeze_at=0.5, **settings)
    pruning.prepare().train()
    optimizer = torch.optim.SGD(pruning.network.parameters(), 0.05, momentum=0.9)
    pruning.attach(optimizer, scaler=scaler)
    return pruning, optimizer


def same(one, other):
    assert one.plan == other.plan
    torch.testing.assert_close(one.state_dict()["learned"], other.state_dict()["learned"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        dict(one.finalize().state_dict()), dict(other.finalize().state_dict()), rtol=1e-3, atol=1e-5
    )


def trained(pruning, optimizer, parts=1, wrap=lambda network: network):
    network = wrap(pruning.network)
    for x, y in batches():
        optimizer.zero_grad()
        for some, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
            loss = F.cross_entropy(network(some), labels) + pruning.loss()
            (loss / parts).backward()
        optimizer.step()
        if pruning.step():
            network = wrap(pruning.network)
    return pruning


def test_accumulated_gradients_are_those_of_the_whole_batch(dag):
    same(trained(*started(dag)), trained(*started(dag), parts=4))


def test_a_loss_scale_changes_nothing(dag):
    plain = trained(*started(dag))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaled, optimizer = started(dag, scaler)
    for x, y in batches():
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(scaled.network(x), y) + scaled.loss()).backward()
        scaler.step(optimizer)
        scaler.update()
        scaled.step()
    assert scaler.get_scale() == 1024.0 * 2**3
    same(plain, scaled)


def test_a_step_with_infinite_gradients_teaches_nothing(dag):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    pruning, optimizer = started(dag, scaler)
    before = pruning.state_dict()["learned"]
    x, y = batches(1)[0]
    scaler.scale(F.cross_entropy(pruning.network(x), y) * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    pruning.step()
    after = pruning.state_dict()["learned"]
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(before[name], after[name]) for name in before if name != "widths")


@pytest.mark.parametrize("mode", ["ranked", "default"])
def test_autocast_reaches_the_target(dag, mode):
    pruning, optimizer = started(dag, mode=mode)
    for x, y in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(pruning.network(x), y)
        (loss + pruning.loss()).backward()
        optimizer.step()
        pruning.step()
    assert analyze(pruning.finalize()).cost() <= 0.5 * analyze(dag).cost()
    assert all(p.dtype == torch.float32 for p in pruning.network.parameters())


@compiles
@pytest.mark.parametrize("mode", ["ranked", "default"])
def test_a_compiled_network_learns_the_same(dag, mode):
    def compiled(network):
        torch._dynamo.reset()
        return torch.compile(network, backend="aot_eager")

    same(trained(*started(dag, mode=mode)), trained(*started(dag, mode=mode), wrap=compiled))


@compiles
def test_a_compiled_network_is_not_compiled_anew_for_each_step(dag):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    pruning, optimizer = started(dag, mode="default")
    network = torch.compile(pruning.network, backend=counter)
    counts = []
    for x, y in batches(3):
        optimizer.zero_grad()
        (F.cross_entropy(network(x), y) + pruning.loss()).backward()
        optimizer.step()
        pruning._learn()
        counts.append(counter.frame_count)
    assert counts[0] > 0
    assert counts[-1] == counts[0]
