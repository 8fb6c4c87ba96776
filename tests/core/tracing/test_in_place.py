from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.errors import TraceError


def rows(batch):
    return torch.randn(batch, 6)


def test_arithmetic_in_place(faithful):
    def run(x):
        y = x.clone()
        y += 1
        y.mul_(2).sub_(x)
        y /= 3
        y -= 0.5
        y **= 2
        return y

    faithful(run, rows)


def test_a_write_into_a_view_shows_in_the_base(faithful):
    def run(x):
        y = x * 1
        part = y[:, 2:4]
        part.mul_(10)
        return y + 1, part

    faithful(run, rows)


def test_a_write_into_the_base_shows_in_an_older_view(faithful):
    def run(x):
        y = x * 1
        view = y.view(-1, 2, 3)
        y.add_(5)
        return view.transpose(1, 2) * 2

    faithful(run, rows)


def test_a_write_through_a_view_of_a_view(faithful):
    def run(x):
        y = x * 1
        y.view(-1, 2, 3)[:, 1].transpose(0, 1)[0].zero_()
        return y

    faithful(run, rows)


def test_views_of_one_base_see_each_others_writes(faithful):
    def run(x):
        y = x * 1
        first, second = y.chunk(2, dim=1)
        whole = y.unsqueeze(1)
        first.fill_(7.0)
        second.add_(first)
        return whole + y.unsqueeze(1)

    faithful(run, rows, training=False)


def test_a_constant_assigned_to_a_column(faithful):
    def run(x):
        y = x * 1
        y[:, 0] = 0
        return y

    faithful(run, rows)


def test_tensors_assigned_to_slices_and_positions(faithful):
    def run(x):
        y = torch.zeros_like(x)
        y[:, :3] = x[:, 3:] * 2
        y[..., -1] = x.sum(1)
        y[:, torch.tensor([4, 3])] += 1
        return y

    faithful(run, rows)


def test_a_masked_assignment_with_a_constant(faithful):
    def run(x):
        y = x * 1
        y[x < 0] = 0.25
        return y

    faithful(run, rows)


def test_an_accumulator_written_slice_by_slice(faithful):
    def run(x):
        out = x.new_zeros(x.shape[0], 3)
        for i in range(3):
            out[:, i] = x[:, 2 * i] - x[:, 2 * i + 1]
        return out

    faithful(run, rows)


def test_in_place_activations_act_on_every_alias(faithful):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act, self.drop = nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)

        def forward(self, x):
            y = self.fc(x)
            z = self.act(y)
            y = y + z
            functional.hardswish(y, inplace=True)
            return self.drop(y) + y

    dag = faithful(Net(), rows)
    assert not any(getattr(vertex.module, "inplace", False) for vertex in dag.inner_vertices)


def test_in_place_activation_on_the_model_input(faithful):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.fc = nn.SiLU(inplace=True), nn.Linear(6, 6)

        def forward(self, x):
            y = x * 2
            return self.fc(self.act(y)) + x

    faithful(Net(), rows)


def test_out_arguments(faithful):
    def run(x):
        result = torch.empty_like(x)
        torch.add(x, 1, out=result)
        return result * 2

    faithful(run, rows, training=False)


def test_data_and_detach_alias_without_gradients(faithful):
    def run(x):
        return x * x.data + x.detach().sigmoid()

    faithful(run, rows)


def writes_through_data(x):
    y = x * 1
    y.data.clamp_(min=0)
    return y * 2


def writes_through_detach(x):
    y = x * 1
    y.detach()[:, 0] = 0
    return y * 2


def writes_without_gradients(x):
    y = x * 1
    with torch.no_grad():
        y.mul_(2)
    return y * 2


@pytest.mark.parametrize("run", [writes_through_data, writes_through_detach, writes_without_gradients])
def test_a_write_that_gradients_pass_by_is_refused(faithful, run):
    with pytest.raises(TraceError, match="behind the back of autograd"):
        faithful(run, rows)


def test_copy_and_fill(faithful):
    def run(x):
        y, z = torch.empty_like(x), torch.empty_like(x)
        y.copy_(x * 3)
        z.fill_(2.0)
        z[:, 1:3].copy_(x[:, :2])
        return y + z

    faithful(run, rows)


def test_masked_fill_and_clamp_in_place(faithful):
    def run(x):
        y = x * 1
        y.masked_fill_(x > 0, -1.0).clamp_(-2.0, 0.5)
        return y.t().contiguous().t()

    faithful(run, rows)


def test_scatter_and_index_writes(faithful):
    def run(x):
        index = torch.tensor([[0, 2, 4]]).expand(x.shape[0], 3)
        y = torch.zeros_like(x).scatter_(1, index, x[:, :3])
        y.index_fill_(1, torch.tensor([5]), 3.0)
        return y.index_add(1, torch.tensor([1]), x[:, :1])

    faithful(run, rows)


def test_a_tensor_written_after_it_was_stacked_does_not_change_the_stack(faithful):
    def run(x):
        y = x * 1
        kept = torch.stack([y, x])
        y.zero_()
        return kept, y

    faithful(run, rows)


def test_reshape_of_a_transpose_is_a_copy(faithful):
    def run(x):
        y = x * 1
        copy = y.t().reshape(-1)
        y.zero_()
        return copy.view(6, -1).t() + y

    faithful(run, rows, batches=(2, 5))  # at batch 1 it is a view


def test_unbind_and_split_write_back(faithful):
    def run(x):
        y = x * 1
        a, b, c = y.view(-1, 3, 2).unbind(1)
        b.mul_(2)
        left, right = y.split([2, 4], dim=1)
        left += 1
        return y, a, c, right

    faithful(run, rows, training=False)
