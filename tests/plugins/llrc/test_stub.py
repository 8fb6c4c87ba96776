"""The public class: its signature, what it refuses, and what it says of steps that do not exist."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.settings import LearnedCompressionConfig
from torch_dag_core.errors import SettingsError, StubError
from torch_dag_llrc import LowRankCompression, LowRankReport

SHAPE = (3, 8, 8)


class LearnedCompression(CompressionAlgorithm):
    config_type = LearnedCompressionConfig


@pytest.fixture
def net(chain):
    torch.manual_seed(0)
    return chain(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Dropout())


def test_the_signature_is_that_of_every_compression_and_then_its_own():
    own = {"scheme": "auto", "gate": "ordered", "rank_multiple": 8, "share_siblings": False, "train": "joint",
           "prune_stem": True, "prune_head": True}  # fmt: skip
    common = dict(inspect.signature(LearnedCompression).parameters)
    parameters = inspect.signature(LowRankCompression).parameters
    assert {name: parameters[name] for name in common} == common
    assert {name: each.default for name, each in parameters.items() if name not in common} == own
    assert {each.kind for name, each in parameters.items() if name in own} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "svd"}, "scheme must be one of 'auto', 'in', 'out', 'spatial', 'tucker2', got 'svd'"),
        ({"gate": "hard"}, "gate must be one of 'ordered', 'independent', got 'hard'"),
        ({"train": "all"}, "train must be one of 'local', 'joint', 'gates', got 'all'"),
        ({"rank_multiple": 0}, "rank_multiple must be an integer of at least 1, got 0"),
        ({"rank_multiple": 8.0}, "rank_multiple must be an integer of at least 1, got 8.0"),
        ({"share_siblings": "yes"}, "share_siblings must be True or False, got 'yes'"),
        ({"prune_stem": None}, "prune_stem must be True or False, got None"),
        ({"training_steps": -1}, "training_steps must be an integer of at least 1, got -1"),
    ],
)
def test_wrong_settings_are_refused_by_name(net, settings, message):
    given = {"keep_flops": 1.0, "training_steps": 10, **settings}
    with pytest.raises(SettingsError, match=message):
        LowRankCompression(net, SHAPE, **given)
    assert issubclass(SettingsError, ValueError)


def test_an_unreachable_target_is_refused_with_the_least(net):
    report = LowRankCompression(net, SHAPE, 1.0, 10).analyze()
    least = report.reachable_flops / report.flops
    with pytest.raises(SettingsError, match=r"low-rank cannot get this graph below .*; ask for at least 0\.\d+$"):
        LowRankCompression(net, SHAPE, least - 0.001, 10)
    reached = LowRankCompression(net, SHAPE, least + 0.001, 10)
    assert reached.removable_share == pytest.approx(1 - least)
    assert reached.target_normalized_flops / reached.initial_normalized_flops == pytest.approx(least + 0.001)


@pytest.mark.parametrize("cost", ["latency", "params"])
def test_costs_that_are_missing_say_so(net, cost):
    with pytest.raises(
        StubError, match=rf"low-rank is a stub: analyze\(\) does not exist yet, it needs the cost '{cost}'"
    ):
        LowRankCompression(net, SHAPE, 1.0, 10, cost=cost)


@pytest.mark.parametrize(
    ("step", "arguments", "missing"),
    [
        ("calibrate", ([],), "means and covariances"),
        ("prepare", (), "the whitened factors of every layer and the 'ordered' gates"),
        ("losses", (0,), "the soft ranks"),
        ("finalize", (), "ranks rounded to multiples of 8"),
        ("remove_ranks", (), "ranks rounded to multiples of 8"),
    ],
)
def test_every_other_step_says_what_is_missing(net, step, arguments, missing):
    compression = LowRankCompression(net, SHAPE, 0.9, 10)
    with pytest.raises(NotImplementedError, match=f"low-rank is a stub: .* needs {missing}"):
        getattr(compression, step)(*arguments)


@pytest.mark.parametrize("training", [True, False])
def test_analysis_changes_nothing(net, training):
    net.train(training)
    before, text = {name: tensor.clone() for name, tensor in net.state_dict().items()}, str(net)
    modes = [module.training for module in net.modules()]
    first = LowRankCompression(net, SHAPE, 1.0, 10)
    assert isinstance(first.analyze(), LowRankReport)
    assert first.analyze() == first.analyze()
    assert str(net) == text
    assert [module.training for module in net.modules()] == modes
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(not vertex.meta for vertex in net.vertices)


def test_the_report_prints_each_candidate_with_its_schemes(net):
    lines = str(LowRankCompression(net, SHAPE, 1.0, 10).analyze()).splitlines()
    assert lines[0].startswith("low-rank: 2 candidates, ")
    assert lines[3].startswith("d ")
    assert "out 8.." in lines[3]
