"""Numbers that a model takes from Python's and NumPy's generators, from entropy or from a clock."""

from __future__ import annotations

import datetime as dt
import os
import random
import secrets
import time
import uuid
from datetime import datetime as moment
from os import urandom as entropy
from random import Random, SystemRandom, randint
from random import random as imported
from time import perf_counter as counter
from time import time as now

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.surroundings import IDENTITY

# ruff: noqa: NPY002, DTZ001, DTZ005 - the global generator and local times are what models use
DRAW, UNIFORM = Random(1).random, Random(1).uniform
OWN, STATE, GENERATOR, SYSTEM = Random(1), np.random.RandomState(1), np.random.default_rng(1), SystemRandom()


def rows(batch):
    return torch.randn(batch, 6)


GRADIENT_MODE = {
    "a decision": lambda x: x * 2 if torch.is_grad_enabled() else x,
    "a factor": lambda x: x * float(torch.is_grad_enabled()),
}


@pytest.mark.parametrize("name", GRADIENT_MODE)
def test_decisions_by_the_gradient_mode_are_refused_by_line(name, model_of):
    line = GRADIENT_MODE[name].__code__.co_firstlineno
    original = torch.is_grad_enabled
    with pytest.raises(TraceError, match=rf"torch\.is_grad_enabled\(\), at {__file__}:{line}, .* self\.training"):
        build_from_unstructured_module(model_of(GRADIENT_MODE[name]), rows(2))
    assert torch.is_grad_enabled is original


def _restored(x):
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        y = x * 2
    with torch.no_grad():
        z = x + 1
    return y + z * x


def test_a_gradient_mode_that_decides_nothing_may_be_asked(model_of):
    model, x = model_of(_restored), rows(2)
    dag = build_from_unstructured_module(model, x)
    assert torch.equal(dag(x), model(x))


FOLLOWED = {
    "a decision": lambda x: x * 2 if random.random() < 0.05 else x,
    "a decision by an imported function": lambda x: x * 2 if imported() > 0.95 else x,
    "a factor": lambda x: x * random.uniform(0.5, 1.5),
    "a choice": lambda x: x * random.choice([1, 2, 3]),
    "an imported integer": lambda x: x + randint(0, 1),
    "an order": lambda x: x[:, random.sample(range(6), 6)],
    "numpy's decision": lambda x: x * 2 if np.random.rand() < 0.05 else x,
    "numpy's beta": lambda x: x * float(np.random.beta(0.4, 0.4)),
    "numpy's noise": lambda x: x + torch.from_numpy(np.random.randn(6)).float(),
    "numpy's integer": lambda x: x.roll(int(np.random.randint(0, 3)), 1),
    "numpy's permutation": lambda x: x[:, np.random.permutation(6).tolist()],
    "a generator outside of the model": lambda x: x * 2 if OWN.random() < 0.05 else x,
    "an old generator of numpy": lambda x: x * 2 if STATE.rand() < 0.05 else x,
    "a generator of numpy": lambda x: x * GENERATOR.random(),
    "a fresh generator": lambda x: x * Random().random(),
    "a fresh generator of numpy": lambda x: x * np.random.default_rng().random(),
    "the system's generator": lambda x: x * SYSTEM.random(),
    "secrets": lambda x: x * secrets.randbelow(1000),
    "entropy": lambda x: x * (os.urandom(1)[0] / 255),
    "a random name": lambda x: x * (uuid.uuid4().int % 7),
    "a clock": lambda x: x * time.time(),
    "a clock by an alias": lambda x: x * 2 if now() % 2 < 1 else x,
    "a counter by an alias": lambda x: x * counter(),
    "entropy by an alias": lambda x: x * (entropy(1)[0] / 255),
    "entropy of Linux": lambda x: x * (os.getrandom(1)[0] / 255),
    "the second": lambda x: x * time.localtime().tm_sec,
    "the half of the day": lambda x: x * 2 if time.gmtime().tm_hour < 12 else x,
    "the day of the week": lambda x: x * 2 if time.localtime().tm_wday < 5 else x,
    "a time as text": lambda x: x * int(time.strftime("%S")),
    "a time as text by default": lambda x: x * len(set(time.ctime())) * float(time.asctime()[17:19]),
    "a date": lambda x: x * dt.datetime.now().minute,
    "a date by an alias": lambda x: x * 2 if moment.now().month < 7 else x,
    "a date elsewhere": lambda x: x * moment.now(tz=dt.UTC).second,
    "a name by the time": lambda x: x * (uuid.uuid1().int % 7),
    "a clock of the thread": lambda x: x * time.thread_time(),
    "a clock of the system": lambda x: x * time.clock_gettime(time.CLOCK_MONOTONIC),
    "times of the process": lambda x: x * os.times().elapsed,
    "an identity": lambda x: x * (id(object()) % 1000),
    "a decision by the identity of a tensor": lambda x: x * 2 if id(x + 1) // 16 % 2 else x,
    "a hash of an object": lambda x: x * (hash(object()) % 1000),
    "the seed of torch": lambda x: x * (torch.initial_seed() % 1000),
    "a method of a generator": lambda x: x * DRAW(),
    "a method in Python of a generator": lambda x: x * UNIFORM(0.5, 1.5),
}


@given(st.integers(0, 2**60))
def test_the_trials_of_an_identity_show_every_bit_both_ways(number):
    tried = [IDENTITY.other(number, trial) for trial in range(8)]
    assert tried[0] ^ tried[1] == 2**62 - 1
    assert len({number, *tried}) == 9


@pytest.mark.parametrize("name", FOLLOWED)
def test_numbers_that_the_graph_would_repeat_are_refused_by_line(name, model_of):
    line = FOLLOWED[name].__code__.co_firstlineno
    states = random.getstate(), repr(np.random.get_state()), OWN.getstate(), repr(GENERATOR.bit_generator.state)
    functions = os.urandom, time.time, Random.seed
    with pytest.raises(TraceError, match=rf"computes with numbers from .*, at {__file__}:{line}, so .*\(torch\.rand\)"):
        build_from_unstructured_module(model_of(FOLLOWED[name]), rows(2))
    after = random.getstate(), repr(np.random.get_state()), OWN.getstate(), repr(GENERATOR.bit_generator.state)
    assert after == states
    assert (os.urandom, time.time, Random.seed) == functions


class InTraining(nn.Module):
    """Draw in training alone, as layer drop does."""

    def __init__(self, rate, draw):
        super().__init__()
        self.fc, self.rate, self.draw = nn.Linear(6, 6), rate, draw

    def forward(self, x):
        if self.training and self.draw() < self.rate:
            return x
        return self.fc(x)


@pytest.mark.parametrize("draw", [random.random, imported, np.random.rand])
def test_draws_in_training_alone_are_refused(draw):
    with pytest.raises(TraceError, match=rf"random, at {__file__}:\d+"):
        build_from_unstructured_module(InTraining(0.1, draw), rows(2))


def timed(x):
    start = time.perf_counter()
    y = x * 2
    LOG.append((uuid.uuid4(), time.perf_counter() - start))
    return y


def seeded(x):
    random.seed(3)
    return x * random.random()


LOG = []
PLACE = id(LOG)
HARMLESS = {
    "layer drop of rate 0": InTraining(0.0, random.random),
    "a decision that is always the same": lambda x: x * 2 if random.random() < 2 else x,
    "a number that nobody reads": lambda x: (np.random.rand(3), GENERATOR.random(), x * 2)[-1],
    "a generator with a seed": lambda x: x * Random(3).random() + float(np.random.default_rng(3).random()),
    "a seed in forward": seeded,
    "a log with names and times": timed,
    "a memory by identity": lambda x: {id(part): part for part in (x, x + 1)}[id(x)] * 2,
    "the identity of what was there before": lambda x: x * (1 + (id(LOG) == PLACE)),
    "hashes of values": lambda x: x * (hash((1, 2)) == hash((1, 2))) + len({object(), object()}),
    "a fixed date": lambda x: x * moment(2020, 1, 2).day * isinstance(moment.now(), dt.datetime),
    "the text of a given time": lambda x: x * len(time.strftime("%S", time.gmtime(0))),
    "a class derived in forward": lambda x: x * type("Day", (dt.datetime,), {})(2020, 1, 2).day,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_numbers_that_do_not_reach_the_graph_are_no_matter(name, faithful):
    faithful(HARMLESS[name], rows, relative=1e-6)


def test_a_draw_of_torch_that_becomes_a_number_is_refused(model_of):
    with pytest.raises(TraceError, match=rf"takes a Python value out of a computed tensor .*{__file__}:\d+"):
        build_from_unstructured_module(model_of(lambda x: x * torch.rand(()).item()), rows(2))


def test_the_generator_of_the_system_may_be_an_attribute(faithful):
    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.draws = SystemRandom()

        def forward(self, x):
            return x * 2

    faithful(Holding(), rows, training=False)


def test_nothing_stays_replaced(model_of):
    build_from_unstructured_module(model_of(lambda x: x * 2), rows(2))
    assert (now, counter, entropy, moment) == (time.time, time.perf_counter, os.urandom, dt.datetime)
    assert type(moment) is type


def test_an_alias_made_after_a_conversion_is_found(model_of):
    build_from_unstructured_module(model_of(lambda x: x * 2), rows(2))
    globals()["LATER"] = time.monotonic
    with pytest.raises(TraceError, match="numbers from a clock"):
        build_from_unstructured_module(model_of(lambda x: x * LATER()), rows(2))  # noqa: F821


UNKNOWN = {
    "the load": lambda x: x * next(TICKS),
    "an order of sets": lambda x: x.roll(next(TICKS) % 3, 1),
    "a decision": lambda x: x * 2 if next(TICKS) % 2 else x,
}
TICKS = iter(range(10**9))


@pytest.mark.parametrize("name", UNKNOWN)
def test_numbers_of_unknown_origin_are_refused_by_line(name, model_of):
    line = UNKNOWN[name].__code__.co_firstlineno
    with pytest.raises(TraceError, match=rf"something else each time it is called .*{__file__}:{line}; a graph"):
        build_from_unstructured_module(model_of(UNKNOWN[name]), rows(2))
