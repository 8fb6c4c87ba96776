"""Threads that convert and run models at the same time do not disturb each other."""

from __future__ import annotations

import copy
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError
from torch_dag_core.tracing import exclusive

THREADS = 8


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return Scaled.apply(self.drop(self.norm(self.fc(x)))) * self.scale


def make(width=4, depth=3):
    return nn.Sequential(*(Block(width) for _ in range(depth))).eval()


def together(*jobs):
    """Run functions at the same time; the first error is raised."""
    barrier = threading.Barrier(len(jobs))

    def start(job):
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(start, job) for job in jobs]]


@pytest.fixture(autouse=True)
def nothing_stays_patched():
    call, apply = nn.Module.__call__, torch.autograd.Function.apply
    yield
    assert nn.Module.__call__ is call
    assert torch.autograd.Function.apply == apply


@pytest.fixture(autouse=True)
def fast_switching():
    """Threads take turns a thousand times more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


def assert_untouched(model, before):
    assert not model.training
    for (name, tensor), (_, old) in zip(model.state_dict().items(), before.state_dict().items(), strict=True):
        assert not tensor.is_meta, name
        assert torch.equal(tensor, old), name


def test_threads_that_convert_one_model():
    model, x = make(), torch.randn(3, 4)
    before = copy.deepcopy(model)
    parameters = list(model.parameters())
    graphs = together(*[lambda: build_from_unstructured_module(model, x)] * THREADS)
    assert_untouched(model, before)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(graph(x), model(x)) for graph in graphs)
    assert len({str(graph) for graph in graphs}) == 1


def test_threads_that_convert_different_models():
    models, x = [make(depth=1 + i % 3) for i in range(THREADS)], torch.randn(3, 4)
    befores = copy.deepcopy(models)
    graphs = together(*[lambda model=model: build_from_unstructured_module(model, x) for model in models])
    for model, before, graph in zip(models, befores, graphs, strict=True):
        assert_untouched(model, before)
        assert torch.equal(graph(x), model(x))


def test_models_run_as_ever_while_they_and_others_are_converted():
    shared, other, x = make(), make(depth=2), torch.randn(3, 4)
    graph = build_from_unstructured_module(other, x)
    runs = [(module, module(x).detach()) for module in (shared, other, graph)]
    over = threading.Event()

    def run(module, expected):
        count = 0
        while not over.is_set():
            assert torch.equal(module(x), expected)
            count += 1
        return count

    def convert():
        try:
            return [build_from_unstructured_module(shared, x) for _ in range(4)]
        finally:
            over.set()

    *counts, graphs = together(*[lambda r=r: run(*r) for r in runs for _ in range(2)], convert)
    assert min(counts) > 0
    assert all(torch.equal(graph(x), runs[0][1]) for graph in graphs)


def test_a_call_waits_until_its_model_is_converted():
    model, x = make(), torch.randn(3, 4)
    expected, log, inside = model(x), SimpleQueue(), threading.Event()

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            inside.set()
            time.sleep(0.05)
            log.put("traced")
            return self.inner(x)

    slow = Slow().eval()

    def call():
        inside.wait()
        result = model(x)
        log.put("called")
        return result

    _, result = together(lambda: build_from_unstructured_module(slow, x), call)
    assert torch.equal(result, expected)
    steps = [log.get() for _ in range(log.qsize())]
    assert steps[-1] == "called"
    assert steps.count("traced") >= 2


def test_a_conversion_waits_for_calls_that_are_under_way():
    log, inside = SimpleQueue(), threading.Event()

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = make(depth=1), make(depth=1)

        def forward(self, x):
            y = self.first(x)
            inside.set()
            time.sleep(0.05)
            y = self.second(y)
            log.put(x.is_meta)
            return y

    model, x = Slow().eval(), torch.randn(3, 4)

    def convert():
        inside.wait()
        return build_from_unstructured_module(model, x)

    result, graph = together(lambda: model(x), convert)
    assert torch.equal(graph(x), result)
    assert log.qsize() > 1


def test_a_call_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(exclusive, "_PATIENCE_SECONDS", 0.05)
    inside, over = threading.Event(), threading.Event()

    class Stuck(nn.Module):
        def forward(self, x):
            inside.set()
            over.wait()
            return x * 2

    model = Stuck()

    def convert():
        inside.wait()
        try:
            with pytest.raises(TraceError, match="another thread has been inside a call of the model"):
                build_from_unstructured_module(model, torch.ones(2, 3))
        finally:
            over.set()

    together(lambda: model(torch.ones(2, 3)), convert)


def test_a_model_that_uses_threads_of_its_own_is_refused_not_stuck():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with ThreadPoolExecutor(2) as pool:
                left, right = pool.submit(self.left, x), pool.submit(self.right, x)
                return left.result() + right.result()

    with pytest.raises(TraceError, match="a call that the trace cannot see"):
        build_from_unstructured_module(Parallel(), torch.randn(2, 4))


def test_a_thread_that_holds_the_lock_may_convert():
    model, x = make(), torch.randn(3, 4)
    with exclusive.exclusive(model), exclusive.exclusive(model[0]):
        graph = build_from_unstructured_module(model[1:], x)
    assert torch.equal(graph(x), model[1:](x))
