from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import torch_dag_core as td


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


@pytest.fixture
def dag():
    return td.build_from_unstructured_module(Net().eval(), torch.randn(4, 3, 10, 10))


def test_costs_by_hand(dag):
    table = td.flops(dag)
    outputs = 8 * 8 * 8
    assert table["conv"].flops == 2 * outputs * 3 * 9
    assert table["bn"].flops == 2 * outputs
    assert table["relu"].flops == outputs
    assert table["fc"].flops == 2 * 8 * 5 + 5
    assert table["conv"].outputs == ((1, 8, 8, 8),)
    assert (table["conv"].parameters, table["bn"].parameters, table["fc"].parameters) == (216, 16, 45)
    assert table.flops == sum(row.flops for row in table.rows)
    assert table.parameters == sum(p.numel() for p in dag.parameters())


def test_costs_follow_the_inputs(dag):
    one, four = td.flops(dag, torch.empty(1, 3, 10, 10)), td.flops(dag, (torch.empty(4, 3, 10, 10),))
    assert four.flops == 4 * one.flops
    assert four.parameters == one.parameters
    with pytest.raises(td.InputError):
        td.flops(dag, torch.empty(1, 4, 10, 10))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "swin_t", "convnext_tiny"])
def test_contractions_agree_with_torch(name):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        source = getattr(torchvision.models, name)().eval()
    x = torch.empty(1, 3, 224, 224, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        source(x)
    model = getattr(torchvision.models, name)().eval()
    table = td.flops(td.build_from_unstructured_module(model, torch.empty(2, 3, 224, 224)))
    assert table.parameters == sum(p.numel() for p in model.parameters())
    assert counter.get_total_flops() <= table.flops <= 1.12 * counter.get_total_flops()


def test_shared_parameters_count_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    table = td.flops(td.build_from_unstructured_module(Twice(), torch.randn(2, 4)))
    assert table.parameters == 20
    assert [row.flops for row in table.rows] == [36, 36]


def test_nested_graphs_cost_what_is_in_them(dag):
    flat = td.flops(dag)
    dag.wrap_subgraph([dag.get_vertex_by_name(name) for name in ("conv", "bn", "relu")], name="stem")
    nested = td.flops(dag)
    assert (nested.flops, nested.parameters) == (flat.flops, flat.parameters)
    assert nested["stem"].parameters == 232


def test_state_and_modes_are_left_alone():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x):
            self.calls += 1
            return self.bn(x) * self.calls

    dag = td.build_from_unstructured_module(Counts(), torch.randn(2, 4)).train()
    state = {key: value.clone() for key, value in dag.state_dict().items()}
    td.flops(dag)
    assert dag.training
    assert all(torch.equal(value, state[key]) for key, value in dag.state_dict().items())


def test_modules_that_look_at_values_are_counted():
    class Gate(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    dag = td.build_from_unstructured_module(
        nn.Sequential(nn.Linear(4, 4), Gate()), torch.randn(2, 4), atomic_modules=(Gate,)
    )
    assert td.flops(dag)["1"].flops == 4


def test_graphs_of_unknown_sizes_ask_for_them():
    dag = td.DagModule()
    x = dag.add_input("x")
    dag.set_output(dag.add_vertex("relu", nn.ReLU(), [x]))
    with pytest.raises(td.InputError, match="pass example_inputs"):
        td.flops(dag)
    assert td.flops(dag, torch.empty(2, 3)).flops == 6


def test_the_table_prints(dag):
    lines = str(td.flops(dag)).splitlines()
    assert lines[0].split() == ["vertex", "op", "outputs", "FLOPs", "parameters"]
    assert lines[1].split() == ["conv", "Conv2d", "1x8x8x8", "27,648", "216"]
    assert lines[-1].split()[0] == "total"
