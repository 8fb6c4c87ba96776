"""The core's vocabulary under pruning's part of the contract of plugins; and rules that lie."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from torch_dag_core.graph.op import Op
from torch_dag_core.plugins.codecs import OpCodec
from torch_dag_core.plugins.registry import OpSpec
from torch_dag_core.testing import Case, ContractError
from torch_dag_core.testing.collection import record_tests
from torch_dag_pruning import plugin
from torch_dag_pruning.analysis import analysis as analysis_module
from torch_dag_pruning.axes.relation import Relation
from torch_dag_pruning.contract import CHECKS

PRUNES = CHECKS[0]
TABLE = Path(__file__).parents[2] / "core" / "ops" / "test_vocabulary.py"
_SPEC = importlib.util.spec_from_file_location("core_vocabulary", TABLE)
vocabulary = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(vocabulary)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in vocabulary.cases() if PRUNES.applies(c)])
def test_every_op_of_the_core_is_pruned_exactly_or_not_at_all(case):
    assert PRUNES.run(case) is None


def own_tests():
    registry = vocabulary.VOCABULARY.copy()
    for spec in plugin.torch_dag_ops():
        registry.add(spec, owner="torch-dag-pruning")
    for spec in plugin.torch_dag_ops():
        yield from record_tests(registry.get(spec.key), registry)


@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in own_tests()])
def test_the_ops_of_pruning_keep_the_contract(test):
    assert test() is None


class Reverse(Op):
    """Mixes its features: no slot can go alone."""

    def forward(self, x):
        return x + x.flip(-1)


@pytest.fixture
def case():
    registry = vocabulary.VOCABULARY.copy()
    spec = OpSpec(key="sample.reverse", target=Reverse, codec=OpCodec(Reverse))
    registry.add(spec, owner="sample-dist")
    return Case(registry.get("sample.reverse"), 0, Reverse(), (torch.ones(3, 8),), registry)


def test_an_op_without_a_rule_is_carried_along(case):
    assert PRUNES.run(case) is None


def test_a_rule_that_calls_a_mixing_op_elementwise_is_found_out(case, monkeypatch):
    rules = analysis_module.axis_rules()

    def elementwise(ctx):
        return Relation([list(ctx.inputs[0])])

    monkeypatch.setattr(analysis_module, "axis_rules", lambda: {**rules, "sample.reverse": elementwise})
    with pytest.raises(ContractError, match=r"^sample\.reverse-0: between learned layers it is not pruned exactly"):
        PRUNES.run(case)


def test_modules_without_a_float_operand_have_nothing_to_prune(case):
    assert not PRUNES.applies(replace(case, inputs=(torch.tensor([1]),)))
    assert not PRUNES.applies(replace(case, module=nn.Identity(), inputs=((torch.ones(2, 2),),)))
