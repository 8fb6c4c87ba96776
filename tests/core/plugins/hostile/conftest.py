"""A plugin that is broken or means harm, beside a good one that must not suffer."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.plugins.loading import default_registry

# What the sources in the tables are written in: ``add`` implements a hook, the others are short for usual ones.
PREPARE = """
import sys
from types import SimpleNamespace

import click
import torch
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch_dag_core.algorithms.algorithm import AlgorithmSpec

class Layer(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.width = width

    def forward(self, x):
        return x * 2

def sample_function(x):
    if has_torch_function_unary(x):
        return handle_torch_function(sample_function, (x,), x)
    return x * 2

class Caller(nn.Module):
    def forward(self, x):
        return sample_function(x)

class Unshowable(Exception):
    def __str__(self):
        raise RuntimeError("no")

class GivesUp(BaseException):
    pass

class Unprintable:
    __repr__ = Unshowable.__str__

class Codec:
    def config(self, module):
        return {"width": module.width}

    def build(self, config):
        return Layer(**config)

def throw(error):
    raise error

def add(hook, function):
    globals()[f"torch_dag_{hook}"] = hookimpl(function)

def op(**changes):
    add("ops", lambda: [OpSpec(**{"key": "bad.layer", "target": Layer, **changes})])

def codec(config=lambda module: {"width": 3}, build=lambda config: Layer(**config)):
    op(codec=SimpleNamespace(config=config, build=build))

def rule(flops):
    op(flops=lambda module, inputs, outputs, parameters: flops(inputs))

def normalizer(normalize):
    add("normalizers", lambda: [Normalizer(functions=("sample_function",), normalize=normalize)])

def atomic(**fields):
    add("atomic_modules", lambda: [AtomicSpec(target=Layer, **fields)])
    normalizer(lambda call, x: x)
"""


@pytest.fixture
def good(site, op_source):
    """A place where a good plugin is."""
    site.install("good", op_source("good.op"))
    return site


@pytest.fixture
def install(good):
    """Return a function that installs the bad plugin."""
    return lambda source, **options: good.install("bad", PREPARE + source, **options)


@pytest.fixture
def check_the_rest(good):
    """Return a function that asserts that the other plugin and the core do their work, without another word."""

    def check():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            registry = default_registry()
            assert registry.find("good.op") is not None
            assert registry.get("core.linear").owner == "torch-dag-core"
            assert {spec.key for spec in registry.ops() if spec.owner == "sample-bad"} <= {"bad.layer"}
            model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
            x = torch.ones(2, 3)
            assert torch.equal(build_from_unstructured_module(model, x)(x), model(x))

    return check
