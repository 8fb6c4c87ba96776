"""The public class: its signature, what it refuses, and what it says of steps that do not exist."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from torch_dag_block_pruning import BlockPruning, BlockPruningConfig, BlockReport
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.settings import LearnedCompressionConfig
from torch_dag_core.errors import SettingsError, StubError

SHAPE = (3, 8, 8)


class LearnedCompression(CompressionAlgorithm):
    config_type = LearnedCompressionConfig


def state(dag):
    return {name: tensor.clone() for name, tensor in dag.state_dict().items()}


def test_the_signature_is_that_of_every_compression_and_then_its_own():
    own = {"units": ("residual",), "shortcut": "any", "select": "learned", "importance": "recoverability",
           "max_removed": None}  # fmt: skip
    common = dict(inspect.signature(LearnedCompression).parameters)
    parameters = inspect.signature(BlockPruning).parameters
    assert {name: parameters[name] for name in common} == common
    assert {name: each.default for name, each in parameters.items() if name not in common} == own
    assert {each.kind for name, each in parameters.items() if name in own} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": ("residual", "layer")}, "units must be one of 'residual', 'gate', 'span', got 'layer'"),
        ({"units": ()}, "units must name at least one kind of block and each once"),
        ({"units": ("gate", "gate")}, "units must name at least one kind of block and each once"),
        ({"shortcut": "none"}, "shortcut must be one of 'any', 'identity', got 'none'"),
        ({"select": "greedy"}, "select must be one of 'learned', 'ilp', 'iterative', got 'greedy'"),
        ({"importance": "magnitude"}, "importance must be one of 'recoverability', 'taylor', 'bi', got 'magnitude'"),
        ({"max_removed": 0}, "max_removed must be an integer of at least 1, got 0"),
        ({"keep_flops": 2}, "keep_flops is the share of FLOPs that stays"),
    ],
)
def test_wrong_settings_are_refused_by_name(convert, settings, message):
    given = {"keep_flops": 1.0, "training_steps": 10, **settings}
    with pytest.raises(SettingsError, match=message):
        BlockPruning(convert("Identity"), SHAPE, **given)
    assert issubclass(SettingsError, ValueError)


def test_one_unit_may_stand_for_a_tuple():
    assert BlockPruningConfig(keep_flops=1, training_steps=1, units="gate").units == ("gate",)


def test_an_unreachable_target_is_refused_with_the_least(convert):
    dag = convert("Projection")
    report = BlockPruning(dag, SHAPE, 1.0, 10).analyze()
    least = report.reachable_flops / report.flops
    with pytest.raises(SettingsError, match=r"block-pruning cannot get this graph below .*; ask for at least 0\.\d+$"):
        BlockPruning(dag, SHAPE, least - 0.001, 10)
    reached = BlockPruning(dag, SHAPE, least + 0.001, 10)
    assert reached.removable_share == pytest.approx(1 - least)
    assert reached.target_normalized_flops / reached.initial_normalized_flops == pytest.approx(least + 0.001)


@pytest.mark.parametrize("settings", [{"units": ("span",)}, {"cost": "latency"}, {"cost": "params"}])
def test_settings_of_missing_parts_say_so(convert, settings):
    with pytest.raises(StubError, match=r"block-pruning is a stub: analyze\(\) does not exist yet"):
        BlockPruning(convert("Identity"), SHAPE, 1.0, 10, **settings)


@pytest.mark.parametrize(
    ("step", "arguments", "missing"),
    [
        ("calibrate", ([],), "the 'recoverability' scores of blocks"),
        ("prepare", (), "a learnable gate"),
        ("losses", (0,), "the differentiable cost"),
        ("finalize", (), "the 'learned' selection of blocks"),
        ("remove_blocks", (), "the 'learned' selection of blocks"),
    ],
)
def test_every_other_step_says_what_is_missing(convert, step, arguments, missing):
    pruning = BlockPruning(convert("Identity"), SHAPE, 0.5, 10)
    with pytest.raises(NotImplementedError, match=f"block-pruning is a stub: .* needs {missing}"):
        getattr(pruning, step)(*arguments)


@pytest.mark.parametrize("training", [True, False])
def test_analysis_changes_nothing(net, training):
    net.train(training)
    before, text, x = state(net), str(net), torch.randn(2, *SHAPE)
    modes = [module.training for module in net.modules()]
    versions = [parameter._version for parameter in net.parameters()]
    first = BlockPruning(net, SHAPE, 1.0, 10).analyze()
    assert first == BlockPruning(net, None, 1.0, 10).analyze()
    assert str(net) == text
    assert [module.training for module in net.modules()] == modes
    assert [parameter._version for parameter in net.parameters()] == versions
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(not vertex.meta for vertex in net.vertices)
    net(x)


def test_the_report_prints_each_candidate_with_its_cost(convert):
    report = BlockPruning(convert("Identity"), SHAPE, 0.5, 10).analyze()
    assert isinstance(report, BlockReport)
    lines = str(report).splitlines()
    assert lines[0].startswith("block-pruning: 2 candidates, ")
    for candidate, line in zip(report.candidates, lines[2:], strict=True):
        assert line.startswith(candidate.name)
        assert f"{candidate.flops:,}" in line


def test_modules_of_unknown_classes_cost_one_flop_an_element(convert):
    class Odd(nn.Module):
        def forward(self, x):
            return x * 2

    dag = convert("Identity")
    branch = dag.get_vertex_by_name(BlockPruning(dag, SHAPE, 1.0, 10).analyze().candidates[0].source)
    before = BlockPruning(dag, SHAPE, 1.0, 10).analyze().flops
    dag.insert_after(branch, Odd())
    assert BlockPruning(dag, SHAPE, 1.0, 10).analyze().flops == before + 4 * 8 * 8
