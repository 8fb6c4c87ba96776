from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, TraceError


class TallOrWide(nn.Module):
    def __init__(self):
        super().__init__()
        self.tall, self.wide = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.tall(x) if x.shape[2] > x.shape[3] else self.wide(x)


def test_a_branch_on_the_image_size_becomes_an_assumption(faithful):
    dag = faithful(TallOrWide(), lambda b: torch.randn(b, 3, 16, 8))
    assert [str(assumption) for assumption in dag.input_spec.assumptions] == ["(input 0.shape[2] > input 0.shape[3])"]


def test_calling_outside_an_assumption_is_an_error_that_says_so():
    dag = build_from_unstructured_module(TallOrWide(), torch.randn(2, 3, 16, 8))
    with pytest.raises(InputError, match=r"holds only where .*shape\[2\] > .*another path"):
        dag(torch.randn(2, 3, 8, 16))


class LargeBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) * 2 if x.shape[0] > 7 else self.fc(x)


def test_a_branch_on_the_batch_size_becomes_an_assumption(faithful):
    dag = faithful(LargeBatch(), lambda b: torch.randn(b, 4))
    assert len(dag.input_spec.assumptions) == 1
    with pytest.raises(InputError, match="another path"):
        dag(torch.randn(8, 4))


def test_the_branch_of_the_example_is_the_one_that_is_kept():
    model = LargeBatch()
    dag = build_from_unstructured_module(model, torch.randn(9, 4))
    x = torch.randn(11, 4)
    assert torch.equal(dag(x), model(x))
    with pytest.raises(InputError, match="another path"):
        dag(torch.randn(2, 4))


def test_a_length_and_a_truth_value_of_a_size_are_decisions(faithful):
    class Lengths(nn.Module):
        def forward(self, x):
            return x * len(x) if x.shape[1] % 2 else x + 1

    dag = faithful(Lengths(), lambda b: torch.randn(b, 4))
    assert torch.equal(dag(torch.ones(3, 4)), torch.full((3, 4), 2.0))


def test_len_of_the_batch_as_a_factor_follows_it_or_is_refused():
    class Scaled(nn.Module):
        def forward(self, x):
            return x * len(x)

    model = Scaled()
    dag = build_from_unstructured_module(model, torch.randn(2, 4))
    x = torch.randn(5, 4)
    try:
        result = dag(x)
    except InputError:
        result = model(x)
    assert torch.equal(result, model(x))


def test_assertions_on_the_channel_count_leave_no_assumption(faithful):
    class Checked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            batch, width = x.shape
            assert width == self.fc.in_features
            torch._assert(width == 4, "width")
            if batch == 0:
                return x
            return self.fc(x)

    assert not faithful(Checked(), lambda b: torch.randn(b, 4)).input_spec.assumptions


def test_a_loop_over_modules_with_a_skip(faithful):
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x):
            kept = []
            for index, block in enumerate(self.blocks):
                if index == 2:
                    continue
                x = x + block(x)
                kept.append(x)
            return sum(kept)

    dag = faithful(Blocks(), lambda b: torch.randn(b, 4))
    assert "blocks.2" not in dag


def test_a_module_called_twice_is_one_module_with_two_vertices(faithful):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(torch.relu(self.fc(x)))

    dag = faithful(Twice(), lambda b: torch.randn(b, 4))
    assert [vertex.name for vertex in dag.inner_vertices if isinstance(vertex.module, nn.Linear)] == ["fc", "fc_1"]
    assert sum(parameter.numel() for parameter in dag.parameters()) == 20


def test_tied_weights_stay_tied(faithful):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, index):
            return self.head(self.embed(index).tanh())

    dag = faithful(Tied(), lambda b: torch.randint(0, 10, (b, 3)))
    modules = {vertex.name: vertex.module for vertex in dag.inner_vertices}
    assert modules["embed"].weight is modules["head"].weight


def test_one_module_under_two_names(faithful):
    class TwoNames(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    dag = faithful(TwoNames(), lambda b: torch.randn(b, 4))
    assert sum(parameter.numel() for parameter in dag.parameters()) == 20


def test_modules_in_a_plain_list_are_traced_through_with_their_weights(faithful):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.last(x)

    faithful(Hidden(), lambda b: torch.randn(b, 4))


class Gate(nn.Module):
    def forward(self, x):
        if x.mean() > 0:
            return x * 2
        return x


class Gated(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.fc, self.gate = nn.Linear(4, 4), gate

    def forward(self, x):
        return self.gate(self.fc(x))


class TakesItem(nn.Module):
    def forward(self, x):
        return x / x.abs().max().item()


class Masked(nn.Module):
    def forward(self, x):
        return x[x > 0].sum() + x


class Positions(nn.Module):
    def forward(self, x):
        return x.nonzero().float()


@pytest.mark.parametrize("gate", [Gate(), TakesItem(), Masked(), Positions()], ids=lambda m: type(m).__name__)
def test_paths_that_depend_on_data_are_refused_with_module_file_and_line(gate):
    line = type(gate).forward.__code__.co_firstlineno + 1
    with pytest.raises(TraceError) as caught:
        build_from_unstructured_module(Gated(gate), torch.randn(2, 4))
    assert "'gate'" in str(caught.value)
    assert f"{__file__}:{line}" in str(caught.value)
    assert "atomic_modules=" in str(caught.value)


def test_an_atomic_module_may_do_anything(faithful):
    dag = faithful(Gated(Gate()), lambda b: torch.randn(b, 4), atomic_modules=(Gate,))
    assert type(dag.get_vertex_by_name("gate").module) is Gate


def test_decisions_taken_on_buffers_are_constants(faithful):
    class Scheduled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("rates", torch.linspace(0, 1, 3), persistent=False)
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            for rate in self.rates.tolist():
                if rate > 0.2:
                    x = self.fc(x) * rate
            return x

    faithful(Scheduled(), lambda b: torch.randn(b, 4))
