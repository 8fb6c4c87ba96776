"""Buffers that the model itself overwrites."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.builtin_ops import State


def rows(batch):
    return torch.randn(batch, 4)


def run_steps(model, steps, *, training):
    torch.manual_seed(3)
    model = copy.deepcopy(model).train(training)
    outputs = [model(torch.randn(3, 4)) for _ in range(steps)]
    return outputs, model.state_dict()


def assert_equal_over_steps(model, dag):
    for training in (False, True):
        expected, state = run_steps(model, 3, training=training)
        actual, own = run_steps(dag, 3, training=training)
        for a, b in zip(expected, actual, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        assert own.keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(own[key], value, rtol=1e-6, atol=1e-6)


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x) * self.calls


class RunningMean(nn.Module):
    """Updates in training only, by hand."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        if self.training:
            mean, var = x.mean(0), x.var(0, unbiased=False)
            with torch.no_grad():
                self.mean.mul_(0.9).add_(mean, alpha=0.1)
                self.var.copy_(0.9 * self.var + 0.1 * var)
                self.steps.add_(1)
        else:
            mean, var = self.mean, self.var
        return (x - mean) / (var + 1e-5).sqrt() * self.scale


class Reassigned(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("memory", torch.zeros(4))
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x) + self.memory
        self.memory = 0.5 * self.memory + 0.5 * y.mean(0).detach()
        return y


class ReadBeforeAndAfter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("state", torch.ones(4))

    def forward(self, x):
        old = self.state * 2
        self.state[1:3] += x.mean(0)[1:3].detach()
        return x * old + self.state


class SpectralLike(nn.Module):
    """Power iteration in training, as spectral norms do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("u", torch.nn.functional.normalize(torch.randn(4), dim=0))

    def forward(self, x):
        u = self.u
        if self.training:
            with torch.no_grad():
                v = torch.nn.functional.normalize(self.weight.t() @ u, dim=0)
                u.copy_(torch.nn.functional.normalize(self.weight @ v, dim=0))
        sigma = u.clone() @ (self.weight @ torch.nn.functional.normalize(self.weight.t() @ u.clone(), dim=0))
        return x @ (self.weight / sigma)


@pytest.mark.parametrize("kind", [Counter, RunningMean, Reassigned, ReadBeforeAndAfter, SpectralLike])
def test_state_evolves_as_in_the_model(faithful, kind):
    model = kind()
    dag = faithful(model, rows, relative=1e-6)
    assert any(isinstance(vertex.module, State) for vertex in dag.inner_vertices)
    assert_equal_over_steps(model, dag)


def test_batch_norm_statistics_evolve_as_in_the_model(faithful):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4, momentum=None))
    assert_equal_over_steps(model, faithful(model, rows, relative=1e-6))


def test_functional_batch_norm_on_own_buffers(faithful):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(4))
            self.register_buffer("running_var", torch.ones(4))
            self.weight, self.bias = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))

        def forward(self, x):
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 1e-5
            )

    assert_equal_over_steps(model := Functional(), faithful(model, rows))


class OwnBatchNorm(nn.BatchNorm1d):
    def forward(self, x):
        return torch.relu(super().forward(x))


def test_a_subclass_of_batch_norm_is_a_batch_norm(faithful):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = OwnBatchNorm(4)

        def forward(self, x):
            return self.bn(x * 2)

    dag = faithful(model := Net(), rows)
    assert type(dag.get_vertex_by_name("bn").module) is nn.BatchNorm1d
    assert not any(isinstance(vertex.module, State) for vertex in dag.inner_vertices)
    assert_equal_over_steps(model, dag)


class FreezesNorms(nn.Module):
    """Keeps its norms and dropout in evaluation mode, as fine-tuning recipes do."""

    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.free, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.bn.running_mean.fill_(0.5)

    def forward(self, x):
        return self.free(self.drop(self.bn(self.fc(x))))

    def train(self, mode=True):
        super().train(mode)
        self.bn.eval()
        self.drop.eval()


def test_modules_that_a_model_keeps_frozen_stay_frozen(faithful):
    model = FreezesNorms()
    model.train(False)
    dag = build_from_unstructured_module(model, rows(2))
    x = rows(3)
    assert torch.equal(dag(x), model(x))
    for module in (model, dag):
        module.train()
        torch.manual_seed(0)
        module(x).sum().backward()
    torch.manual_seed(0)
    torch.testing.assert_close(dag(x), model(x))
    gradients = dag.state_dict(keep_vars=True)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad)
    missing = {key for key in model.state_dict() if key not in gradients}
    assert missing == {"bn.num_batches_tracked"}
    dag.load_state_dict(model.state_dict(), strict=True)


def test_a_decision_on_a_buffer_that_changes_is_refused():
    class FirstCall(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ready", torch.zeros(()))
            self.shift = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            if self.ready.item() == 0:
                x = x - x.mean()
                self.ready.fill_(1)
            return x + self.shift

    with pytest.raises(TraceError, match="out of a changing tensor"):
        build_from_unstructured_module(FirstCall(), rows(2))


def test_state_in_a_plain_attribute_is_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), torch.zeros(4)

        def forward(self, x):
            y = self.fc(x) + self.last
            self.last = y.mean(0)
            return y

    with pytest.raises(TraceError, match="keeps a tensor in 'last' from one call to the next; make it a buffer"):
        build_from_unstructured_module(Recurrent(), rows(2))


@pytest.mark.parametrize(
    "cast", [torch.Tensor.type_as, lambda mean, x: mean.to(x.dtype), lambda mean, x: mean.to(x).float()]
)
def test_an_attribute_that_is_cast_to_the_type_it_has_is_no_state(cast):
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.mean = nn.Linear(4, 4), torch.tensor([1.0, 2.0, 3.0, 4.0])

        def forward(self, x):
            self.mean = cast(self.mean, x)
            return self.fc(x - self.mean) + self.mean

    model = Centred()
    dag = build_from_unstructured_module(model, rows(2))
    x = rows(3)
    assert torch.equal(dag(x), model(x))


def test_an_attribute_that_is_cast_to_another_type_is_state():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

        def forward(self, x):
            y = x - self.mean
            self.mean = self.mean.type_as(x)
            return y

    with pytest.raises(TraceError, match="keeps a tensor in 'mean' from one call to the next; make it a buffer"):
        build_from_unstructured_module(Centred(), rows(2))


def test_a_write_into_a_plain_attribute_is_refused():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), torch.zeros(4)

        def forward(self, x):
            self.last.add_(1)
            return self.fc(x) + self.last

    model = Recurrent()
    with pytest.raises(TraceError, match="overwrites the tensor 'last', which is not a buffer"):
        build_from_unstructured_module(model, rows(2))
    assert torch.equal(model.last, torch.zeros(4))


def test_state_dicts_go_both_ways():
    model = RunningMean()
    dag = build_from_unstructured_module(model, rows(2))
    other = RunningMean()
    other.mean.fill_(3.0)
    dag.load_state_dict(other.state_dict(), strict=True)
    x = rows(3)
    assert torch.equal(dag.eval()(x), other.eval()(x))
    model.load_state_dict(dag.state_dict(), strict=True)
    assert torch.equal(model.mean, other.mean)


def test_a_parameter_overwritten_in_forward_is_refused():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            with torch.no_grad():
                self.scale.mul_(0.5)
            return x * self.scale

    with pytest.raises(TraceError, match="overwrites its parameter 'scale' in forward"):
        build_from_unstructured_module(Overwrites(), rows(2))
