"""Random models with every kind of state are as before after a conversion, however that ended."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import signal
import threading
import time
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.restoring import restored

GLOBAL = {"t": torch.zeros(3), "n": 0}


class Stop(BaseException):
    """Ends a run without being an `Exception`."""


class Holder:
    def __init__(self):
        self.count, self.values, self.table = 0, [torch.zeros(3), {"x": 1}], np.zeros(3)


class Block(nn.Module):
    """One layer, whose forward takes a few steps that change state, and fails when told to."""

    kept = {"t": torch.zeros(3)}  # noqa: RUF012
    count = 0
    calls = itertools.count()

    def __init__(self, rng, steps):
        super().__init__()
        self.fc, self.bn, self.drop = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.register_buffer("wide", torch.zeros(1).expand(3))
        self.register_buffer("sum", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("late", None)
        self.register_buffer("strided", torch.zeros(3, 3).t()[1])
        self.k, self.flag, self.plain = 0, False, torch.zeros(3)
        self.st = {"t": torch.zeros(3), "deep": [{"n": 0}, (torch.zeros(3), [1])]}
        self.order, self.queue, self.names = OrderedDict(b=1, a=2), deque([1, 2, 3], maxlen=4), {"a"}
        self.holder, self.array = Holder(), np.zeros(3)
        self.rng, self.generator, self.draws = random.Random(1), torch.Generator(), np.random.default_rng(1)
        self.steps = steps
        self.register_forward_hook(lambda module, args, output: module.queue.append(0))
        self.fc.weight.grad = torch.ones(3, 3)
        self.bn.weight.requires_grad_(rng.random() < 0.5)
        self.drop.train(rng.random() < 0.5)

    def forward(self, x):
        for step in self.steps:
            step(self, x)
        return self.drop(self.bn(self.fc(x)))


def inference_buffer(block, _):
    with torch.inference_mode():
        block.sum = torch.ones(3)


def resets_settings(_block, _x):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)


def deletes(block, _):
    del block.names
    block.extra = torch.ones(3)


def changes_structure(block, _):
    block.add_module("lazy", nn.Linear(1, 1))
    block.register_buffer("fresh", torch.ones(2))
    block.fc.register_forward_pre_hook(lambda module, args: None)
    block.fc.eval()


def counts_globally(_block, _x):
    GLOBAL["n"] += 1
    GLOBAL["t"].add_(1)


def draws(block, _):
    random.random()
    np.random.rand()  # noqa: NPY002 - the global generator is what models use
    torch.rand(1)
    block.rng.random()
    block.draws.random()
    torch.rand(1, generator=block.generator)


STEPS = {
    "count": lambda block, x: setattr(block, "k", block.k + 1),
    "statistics": lambda block, x: setattr(block, "seen", block.k + 1),
    "flag": lambda block, x: setattr(block, "flag", not block.flag),
    "class": lambda block, x: setattr(Block, "count", Block.count + 1),
    "class tensor": lambda block, x: block.kept["t"].add_(1),
    "dict tensor": lambda block, x: block.st["t"].add_(1),
    "dict entry": lambda block, x: block.st.update(t=x.mean(0), new=x),
    "deep": lambda block, x: block.st["deep"][0].update(n=5),
    "deep tensor": lambda block, x: block.st["deep"][1][0].mul_(2).add_(x.mean()),
    "deep list": lambda block, x: block.st["deep"][1][1].append(x.shape),
    "order": lambda block, x: block.order.move_to_end("b"),
    "queue": lambda block, x: block.queue.rotate(1),
    "set": lambda block, x: block.names.add("b"),
    "object": lambda block, x: setattr(block.holder, "count", 3),
    "object tensor": lambda block, x: block.holder.values[0].add_(1),
    "object dict": lambda block, x: block.holder.values[1].clear(),
    "object array": lambda block, x: block.holder.table.fill(2.0),
    "array": lambda block, x: block.array.__setitem__(0, 1.0),
    "buffer": lambda block, x: block.sum.add_(x.mean(0).detach()),
    "hidden buffer": lambda block, x: block.hidden.add_(1),
    "strided buffer": lambda block, x: block.strided.add_(1),
    "behind": lambda block, x: block.hidden.numpy().__setitem__(0, 7.0),
    "base of an expanded buffer": lambda block, x: block.wide[:1].fill_(4.0),
    "late buffer": lambda block, x: setattr(block, "late", torch.ones(3)),
    "other buffer": lambda block, x: setattr(block, "sum", torch.ones(5)),
    "inference buffer": inference_buffer,
    "plain": lambda block, x: setattr(block, "plain", x * 2),
    "plain in place": lambda block, x: block.plain.add_(1),
    "global": counts_globally,
    "settings": resets_settings,
    "deletes": deletes,
    "structure": changes_structure,
    "draws": draws,
    "mode": lambda block, x: block.bn.eval(),
    "parameter": lambda block, x: setattr(block.fc, "bias", nn.Parameter(torch.ones(3))),
}


def steps_failing_with(error):
    def fail(_block, _x):
        raise error

    return fail


def of_tensor(value, seen):
    gradient = fingerprint(value.grad, seen) if value.is_leaf else None
    place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.requires_grad)
    return (id(value), type(value), place, value.tolist(), gradient, sorted(vars(value)))


def of_dict(value, seen):
    return (id(value), [(key, fingerprint(item, seen)) for key, item in value.items()])


def of_items(value, seen):
    return (0 if isinstance(value, tuple) else id(value), [fingerprint(item, seen) for item in value])


FINGERPRINTS = (
    (torch.Tensor, of_tensor),
    (np.ndarray, lambda value, _: (id(value), value.tolist())),
    (random.Random, lambda value, _: value.getstate()),
    (torch.Generator, lambda value, _: value.get_state().tolist()),
    (np.random.Generator, lambda value, _: repr(value.bit_generator.state)),
    (dict, of_dict),
    ((list, tuple, deque), of_items),
    (set, lambda value, _: (id(value), sorted(value))),
    ((nn.Module, Holder), lambda value, seen: (id(value), fingerprint(vars(value), seen))),
    ((int, float, str, type(None)), lambda value, _: value),
    (object, lambda value, _: id(value)),
)


def fingerprint(value, seen):
    """Return everything about a value that a conversion could change, as nested tuples."""
    if id(value) in seen:
        return ("again", id(value))
    if isinstance(value, (torch.Tensor, dict, list, nn.Module)):
        seen.add(id(value))
    return next(show for kind, show in FINGERPRINTS if isinstance(value, kind))(value, seen)


def everything(model):
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        fingerprint(model, set()), fingerprint((GLOBAL, Block.kept, Block.count), set()), random.getstate(),
        torch.get_rng_state().tolist(), (numpy_state[1].tolist(), *numpy_state[2:]), torch.is_grad_enabled(),
        torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), torch.get_default_device(),
        nn.Module.__call__, vars(torch.autograd.Function).get("apply"), torch._dynamo.eval_frame._stance,
        torch.Size, len, range, math.sqrt, random.random, time.time,
    )  # fmt: skip


def make(seed, error=None):
    rng = random.Random(seed)
    depth = rng.randint(1, 3)
    programs = [rng.sample(sorted(STEPS.keys() - {"fail"}), rng.randint(0, 4)) for _ in range(depth)]
    if error is not None:
        steps = rng.choice(programs)
        steps.insert(rng.randint(0, len(steps)), "fail")
    torch.manual_seed(seed)
    model = nn.Sequential(*(Block(rng, [STEPS[step] for step in steps]) for steps in programs)).train(
        rng.random() < 0.5
    )
    if rng.random() < 0.3:
        model.append(model[0])
    with torch.inference_mode():
        frozen = nn.Linear(3, 3)
    if rng.random() < 0.2:
        model.append(frozen)
    return model


def convert(model):
    """Convert a model, and return the error if that failed."""
    try:
        build_from_unstructured_module(model, torch.ones(2, 3))
    except (TraceError, Stop, KeyboardInterrupt, SystemExit) as error:
        return type(error)
    return None


def check(seed, error, monkeypatch):
    if error is not None:
        monkeypatch.setitem(STEPS, "fail", steps_failing_with(error))
    model = make(seed, error)
    before = everything(model)
    ended = convert(model)
    after = everything(model)
    assert difference(before, after) is None, (seed, ended)
    return ended


def difference(old, new, path="everything"):
    """Return where two fingerprints differ."""
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)) and len(old) == len(new):
        pairs = zip(old, new, strict=True)
        return next(filter(None, (difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(pairs))), None)
    return None if old == new else f"{path}: {old} is {new}"


@pytest.mark.parametrize("part", range(4))
def test_models_are_as_before(part, monkeypatch):
    ended = {check(seed, None, monkeypatch) for seed in range(60 * part, 60 * part + 60)}
    assert ended == {None, TraceError}


ERRORS = {ValueError: TraceError, KeyboardInterrupt: KeyboardInterrupt, Stop: Stop, SystemExit: SystemExit}


@pytest.mark.parametrize("error", ERRORS)
def test_models_are_as_before_when_a_call_raises(error, monkeypatch):
    ended = {check(seed, error("no"), monkeypatch) for seed in range(1000, 1040)}
    assert ERRORS[error] in ended
    assert ended <= {ERRORS[error], TraceError}


@pytest.mark.skipif(
    not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread(),
    reason="interrupts the main thread by a timer",
)
# Python drops an interrupt that comes while the callback of a weak reference runs, with this warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_models_are_as_before_when_the_user_interrupts_at_any_moment():
    def interrupt(*_):
        raise KeyboardInterrupt

    steps = [STEPS[name] for name in ("statistics", "hidden buffer", "deep list")]
    model = nn.Sequential(*(Block(random.Random(0), steps) for _ in range(2)))
    convert(model)
    before, rng, ended = everything(model), random.Random(0), []
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 0.15))
                try:
                    ended.append(convert(model))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:  # also one that comes before the timer is stopped
                ended.append(KeyboardInterrupt)
            assert difference(before, everything(model)) is None
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert ended.count(KeyboardInterrupt) > 20


def test_what_compiled_functions_do_is_as_before_when_a_block_ends_in_the_middle():
    model = nn.Linear(3, 3)
    before = everything(model)
    with contextlib.suppress(KeyboardInterrupt), restored(model):
        torch.compiler.set_stance("force_eager")
        raise KeyboardInterrupt
    assert difference(before, everything(model)) is None


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.register_buffer("scale", scale)

    def forward(self, x):
        return self.fc(x) * self.scale


def test_models_made_in_inference_mode_convert_unless_they_cannot_train():
    with torch.inference_mode():
        model, writes = Scaled(torch.ones(3)), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    x = torch.randn(4, 3)
    before = everything(model)
    dag = build_from_unstructured_module(model, x)
    assert difference(before, everything(model)) is None
    with torch.no_grad():
        assert torch.equal(dag(x), model(x))
    before = everything(writes)
    with pytest.raises(TraceError, match="Inplace update to inference tensor"):
        build_from_unstructured_module(writes, x)
    assert difference(before, everything(writes)) is None


def test_an_expanded_buffer_is_no_hindrance():
    model, x = Scaled(torch.full((1,), 2.0).expand(3)), torch.randn(4, 3)
    before = everything(model)
    dag = build_from_unstructured_module(model, x)
    assert difference(before, everything(model)) is None
    assert torch.equal(dag(x), model(x))
