"""Rewrites of plugins that fail are named; those of users raise what they raise."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch
from torch import nn

import torch_dag_core as td

RULES = """
import torch_dag_core as td

def break_(match, dag, depth=1):
    return {}["missing"]

def pick(vertex):
    raise RuntimeError("no taste")
"""


@pytest.fixture
def art(site):
    site.install("art", RULES)
    return importlib.import_module("sample_module_art")


@pytest.fixture
def dag():
    return td.build_from_unstructured_module(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.ones(2, 4))


@pytest.mark.parametrize("wrapped", [lambda rewrite: rewrite, lambda rewrite: functools.partial(rewrite, depth=2)])
def test_a_rewrite_of_a_plugin_is_named(art, dag, wrapped):
    rule = td.Rule(td.Pattern(nn.ReLU), wrapped(art.break_), name="art.break")
    before = str(dag)
    with pytest.raises(td.PluginError, match=r"the rewrite 'art.break' of 'sample-art' 1.0 raised KeyError") as caught:
        td.rewrite(dag, rule)
    assert isinstance(caught.value.__cause__, KeyError)
    assert str(dag) == before


def test_a_rewrite_of_the_user_raises_its_own_error(art, dag):
    def fail(match, dag):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        td.rewrite(dag, td.Rule(td.Pattern(nn.ReLU), fail))
