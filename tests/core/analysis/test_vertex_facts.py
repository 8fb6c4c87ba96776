"""What algorithms learn of each vertex."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.analysis.cost_table import flops
from torch_dag_core.analysis.vertex_facts import sample_shape, vertex_facts
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError
from torch_dag_core.graph.builtin_ops import TrainingSwitch


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y + y[:1], y.half()


@pytest.fixture(scope="module")
def net():
    return build_from_unstructured_module(Net(), torch.zeros(2, 3, 8, 8))


def test_costs_are_those_of_one_sample(net):
    assert sum(vertex_facts(net, (3, 8, 8)).flops.values()) == flops(net, torch.zeros(1, 3, 8, 8)).flops


def test_the_remembered_size_is_the_default(net):
    assert vertex_facts(net) == vertex_facts(net, (3, 8, 8))
    assert vertex_facts(net) != vertex_facts(net, (3, 9, 9))
    assert sample_shape(net, None) == (3, 8, 8)


def test_values_are_equal_only_if_they_are_at_every_batch(net):
    facts = vertex_facts(net, (3, 8, 8))
    first = next(v.name for v in net.inner_vertices if facts.values[v.name] != facts.values["norm"]
                 and facts.shapes[v.name] == facts.shapes["norm"])  # fmt: skip
    assert facts.values["conv"] == facts.values["norm"]
    assert facts.shapes[first] == (1, 4, 6, 6)


def test_types_tell_values_apart(net):
    facts = vertex_facts(net, (3, 8, 8))
    half = net.outputs[1].name
    assert facts.shapes[half] == facts.shapes["norm"]
    assert facts.values[half] != facts.values["norm"]


def test_a_size_that_the_graph_does_not_take_is_refused(net):
    with pytest.raises(InputError):
        vertex_facts(net, (4, 8, 8))


def test_a_graph_without_a_known_size_asks_for_one(diamond):
    with pytest.raises(InputError, match="pass input_shape"):
        vertex_facts(diamond)
    assert vertex_facts(diamond, (4,)).shapes["stem.a"] == (1, 4)


def test_several_inputs_are_taken_at_their_remembered_sizes():
    class Two(nn.Module):
        def forward(self, x, pair):
            return x + pair[0] * pair[1]

    graph = build_from_unstructured_module(Two(), (torch.zeros(2, 5), [torch.zeros(2, 5), torch.zeros(2, 5)]))
    assert set(vertex_facts(graph).flops.values()) == {5}
    with pytest.raises(InputError, match="takes 3 tensors, of which input_shape describes one"):
        vertex_facts(graph, (5,))


def test_a_fixed_batch_is_taken_as_it_is():
    class Fixed(nn.Module):
        def forward(self, x):
            return x + torch.arange(4.0).reshape(4, 1)

    graph = build_from_unstructured_module(Fixed(), torch.zeros(4, 5))
    assert vertex_facts(graph, (5,)).shapes[graph.outputs[0].name] == (4, 5)


class Switching(nn.Module):
    """Adds what evaluation and training compute by two layers."""

    def __init__(self):
        super().__init__()
        self.quick, self.slow = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + (self.slow(x) if self.training else self.quick(x))


def test_a_switch_has_the_value_that_it_passes_on():
    dag = build_from_unstructured_module(Switching().eval(), torch.zeros(2, 4, 8, 8))
    facts = vertex_facts(dag)
    (switch,) = (v.name for v in dag.inner_vertices if isinstance(v.module, TrainingSwitch))
    assert (facts.values[switch], facts.shapes[switch]) == (facts.values["quick"], facts.shapes["quick"])
    assert "slow" not in facts.values
