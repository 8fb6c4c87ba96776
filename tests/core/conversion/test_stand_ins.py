"""Module classes that a plugin has traced through a function of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.ops.sampling import SamePad
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import AtomicSpec


class Scaled(nn.Module):
    """Something that no trace shows: a product hidden in numpy."""

    def forward(self, x):
        return torch.from_numpy(x.detach().numpy() * 2)


class NormThenRelu(nn.BatchNorm1d):
    def forward(self, x):
        return functional.relu(super().forward(x))


def registry(**spec):
    result = default_registry().copy()
    result.add_atomic(AtomicSpec(**spec), owner="a test")
    return result


def kinds(dag):
    return [type(vertex.module).__name__ for vertex in dag.inner_vertices]


def test_a_stand_in_is_traced_instead_of_forward(faithful):
    known = registry(target=Scaled, trace_as=lambda _, x: x * 2)
    dag = faithful(nn.Sequential(nn.ReLU(), Scaled()), lambda n: torch.randn(n, 3), registry=known, training=False)
    assert kinds(dag) == ["ReLU", "Mul"]


def convert_norm(call, module, x):
    norm = nn.BatchNorm1d(module.num_features)
    norm.load_state_dict(module.state_dict())
    return call.emit(norm, x, path=call.path)


def test_a_stand_in_may_call_its_module_as_one_vertex(faithful):
    known = registry(target=NormThenRelu, convert=convert_norm, trace_as=lambda module, x: functional.relu(module(x)))
    model = nn.Sequential(nn.Linear(3, 4), NormThenRelu(4))
    dag = faithful(model, lambda n: torch.randn(n, 3), registry=known)
    assert kinds(dag) == ["Linear", "BatchNorm1d", "ReLU"]
    assert dag.state_dict().keys() == model.state_dict().keys()


class SamePadded(nn.Conv2d):
    def forward(self, x):
        total = [max((-(size // -2) - 1) * 2 + 3 - size, 0) for size in x.shape[-2:]]
        height, width = total
        x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def test_a_stand_in_may_call_ops_of_the_vocabulary(faithful):
    def stand_in(module, x):
        return functional.conv2d(SamePad((3, 3), (2, 2))(x), module.weight, module.bias, module.stride)

    known = registry(target=SamePadded, trace_as=stand_in)
    model = nn.Sequential(SamePadded(3, 4, 3, stride=2), nn.ReLU())
    dag = faithful(model, lambda n: torch.randn(n, 3, 32, 32), registry=known)
    assert kinds(dag) == ["SamePad", "Conv2d", "ReLU"]
    for size in ((33, 32), (7, 50), (1, 1)):
        image = torch.randn(2, 3, *size)
        torch.testing.assert_close(dag(image), model(image), rtol=0, atol=0)


@pytest.mark.parametrize("accepted", [True, False])
def test_accepts_decides_by_the_instance(accepted, faithful):
    known = registry(
        target=NormThenRelu, convert=convert_norm, trace_as=lambda module, x: functional.relu(module(x)),
        accepts=lambda module: module.momentum == 0.1,
    )  # fmt: skip
    norm = NormThenRelu(4, momentum=0.1 if accepted else 0.2)
    dag = faithful(nn.Sequential(nn.Linear(3, 4), norm), lambda n: torch.randn(n, 3), registry=known)
    assert ("BatchNorm1d" in kinds(dag)) or not accepted
