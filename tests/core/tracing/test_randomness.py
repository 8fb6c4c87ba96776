"""Draws by parameters that are tensors, and what a model does to generators and seeds."""

from __future__ import annotations

from random import Random
from threading import Thread

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.random import fork_rng, manual_seed

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError


def rows(batch):
    return torch.randn(batch, 6)


DRAWS = {
    "normal of a mean and a deviation": lambda x: torch.normal(x, x.abs()),
    "normal of a mean": torch.normal,
    "normal of a mean and a number": lambda x: torch.normal(x, 0.1),
    "normal of a mean and a number by name": lambda x: torch.normal(mean=x, std=0.5),
    "normal of a number and a deviation": lambda x: torch.normal(3.0, x.exp()),
    "normal of numbers": lambda x: x + torch.normal(3.0, 0.1, size=(6,)),
    "normal of numbers, as large as another": lambda x: x + torch.normal(3, 2, x.shape),
    "normal of constants": lambda x: x * torch.normal(torch.arange(6.0), torch.ones(6)),
    "normal in place after a mean": lambda x: x + torch.full((6,), 5.0).normal_(),
    "standard and shifted in place": lambda x: torch.empty_like(x).normal_(1.0, 2.0) + x,
    "bernoulli of probabilities": lambda x: x * torch.bernoulli(x.sigmoid()),
    "bernoulli in place": lambda x: x * torch.empty(6).bernoulli_(),
    "bernoulli in place by a number": lambda x: x * torch.empty_like(x).bernoulli_(0.3),
    "bernoulli in place by probabilities": lambda x: x + torch.empty_like(x).bernoulli_(x.sigmoid()),
    "poisson": lambda x: x + torch.poisson(x.exp()),
    "multinomial": lambda x: x.gather(1, torch.multinomial(x.softmax(-1), 3)),
    "a sample of a distribution": lambda x: x * torch.distributions.Normal(x, 0.3, validate_args=False).sample(),
    "a reparametrized sample": lambda x: torch.distributions.Normal(x, 0.3, validate_args=False).rsample(),
    "the default generator by name": lambda x: x + torch.randn(6, generator=torch.default_generator),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_models_draws(name, reloaded):
    dag = reloaded(DRAWS[name], rows, relative=1e-6)
    dag.eval()
    x = rows(2)
    assert not torch.equal(dag(x), dag(x))


OWN = torch.Generator()
GENERATORS = {
    "randn": lambda x: x + torch.randn(6, generator=OWN),
    "normal": lambda x: torch.normal(x, 1.0, generator=OWN),
    "uniform_": lambda x: x + torch.empty(6).uniform_(generator=OWN),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid(), generator=OWN),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_of_the_models_own_is_refused_by_line(name, model_of):
    line = GENERATORS[name].__code__.co_firstlineno
    with pytest.raises(TraceError, match=rf"{name.strip('_')} draws from a generator .*{__file__}:{line}"):
        build_from_unstructured_module(model_of(GENERATORS[name]), rows(2))


def after(act):
    def run(x):
        act()
        return x + torch.randn(6)

    return run


def forked(x):
    with torch.random.fork_rng(devices=[]):
        return functional.dropout(x, 0.5)


def imported_fork(x):
    with fork_rng(devices=[]):
        return x + torch.randn(6)


SEEDS = {
    "manual_seed": after(lambda: torch.manual_seed(3)),
    "an imported manual_seed": after(lambda: manual_seed(3)),
    "seed": after(torch.seed),
    "set_rng_state": after(lambda: torch.set_rng_state(torch.get_rng_state())),
    "fork_rng": forked,
    "an imported fork_rng": imported_fork,
    "the generator itself": after(lambda: torch.default_generator.manual_seed(3)),
    "a seed after the last draw": lambda x: (x + torch.randn(6), torch.default_generator.manual_seed(3))[0],
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_inside_of_forward_are_refused_by_line(name, model_of):
    model, x = model_of(SEEDS[name]), rows(2)
    state, seeded = torch.get_rng_state(), torch.random.default_generator
    with pytest.raises(TraceError, match=rf"in forward, which a graph cannot repeat.*{__file__}:\d+"):
        build_from_unstructured_module(model, x)
    assert torch.random.default_generator is seeded
    assert torch.equal(torch.get_rng_state(), state)


class Reading(nn.Module):
    """Look at random state, and draw from generators that are no business of torch."""

    def forward(self, x):
        torch.get_rng_state()
        return x * Random(0).random() + torch.initial_seed() * 0 + functional.dropout(x, 0.5, self.training)


def test_reading_the_state_changes_nothing(faithful):
    faithful(Reading(), rows)


class Seeded(nn.Module):
    def forward(self, x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return x + torch.randn(6)


def test_a_module_kept_whole_may_seed(faithful):
    dag = faithful(nn.Sequential(nn.Linear(6, 6), Seeded()), rows, atomic_modules=[Seeded])
    assert [type(vertex.module).__name__ for vertex in dag.inner_vertices] == ["Linear", "Seeded"]


def test_other_threads_may_seed(faithful):
    class Patient(nn.Module):
        def forward(self, x):
            if torch.random.default_generator is not torch.default_generator:
                failures = []
                thread = Thread(target=seed_a_copy, args=(failures,))
                thread.start()
                thread.join()
                assert not failures
            return x * 2

    def seed_a_copy(failures):
        try:
            torch.set_rng_state(torch.get_rng_state())
        except TraceError as error:
            failures.append(error)

    faithful(Patient(), rows)
