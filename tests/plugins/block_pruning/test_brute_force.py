"""Every legal pattern of cuts on small nets, made for real: what is left costs what the report says."""

from __future__ import annotations

import itertools

import pytest
import torch

from torch_dag_block_pruning import BlockPruningConfig, analyze_blocks
from torch_dag_core.errors import SettingsError

SHAPE = (3, 8, 8)


def analyze(dag, **settings):
    config = BlockPruningConfig(keep_flops=1.0, training_steps=1, **settings)
    return analyze_blocks(dag, SHAPE, config)


def patterns(report):
    """Iterate over all choices of candidates, in the order of the graph."""
    assert 0 < len(report.candidates) <= 8
    for size in range(len(report.candidates) + 1):
        yield from itertools.combinations(report.candidates, size)


def keeps_an_operand(pattern):
    joins = [each.join for each in pattern]
    return len(set(joins)) == len(joins)


@pytest.mark.parametrize("units", [("residual",), ("residual", "gate")])
def test_every_legal_pattern_leaves_what_the_report_says(net, cut, flops, units):
    report = analyze(net, units=units)
    x = torch.randn(3, *SHAPE)
    left = {}
    for pattern in filter(keeps_an_operand, patterns(report)):
        names = tuple(each.name for each in pattern)
        smaller = cut(net, pattern)
        left[names] = flops(smaller, SHAPE)
        assert report.is_legal(names)
        assert report.remaining_flops(names) == left[names]
        assert smaller(x).shape == net(x).shape
    assert report.flops == left[()] == flops(net, SHAPE)
    assert report.reachable_flops == min(left.values()) == report.remaining_flops(report.deepest)


def test_each_candidate_names_exactly_what_dies(net, cut):
    for candidate in analyze(net, units=("residual", "gate")).candidates:
        before = {vertex.name for vertex in net.inner_vertices}
        after = {vertex.name for vertex in cut(net, [candidate]).inner_vertices}
        assert before - after == {*candidate.vertices, candidate.join}


def test_a_candidate_costs_what_goes_with_it(net):
    report = analyze(net)
    for candidate in report.candidates:
        assert candidate.removable == report.flops - report.remaining_flops([candidate.name])


def test_the_output_always_depends_on_the_input(net, cut):
    report = analyze(net)
    for pattern in filter(keeps_an_operand, patterns(report)):
        x = torch.randn(2, *SHAPE, requires_grad=True)
        cut(net, pattern)(x).square().sum().backward()
        assert x.grad.abs().sum() > 0


def test_both_operands_of_one_join_cannot_go(convert):
    report = analyze(convert("Projection"))
    main, shortcut = (each.name for each in report.candidates[:2])
    assert not report.is_legal([main, shortcut])
    with pytest.raises(SettingsError, match="leave a join without operands"):
        report.remaining_flops([main, shortcut])
    with pytest.raises(SettingsError, match="there is no candidate 'nothing'"):
        report.remaining_flops(["nothing"])
