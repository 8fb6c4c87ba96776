"""The author's kit finds what is wrong with a module, a codec or a plugin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion import normalizers
from torch_dag_core.errors import PluginLoadError
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry
from torch_dag_core.testing import CHECKS, Case, ContractError, contract, pytest_generate_tests
from torch_dag_core.testing.collection import record_tests


class Fine(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x):
        return x * self.scale


class Overwrites(Fine):
    def forward(self, x):
        return x.mul_(self.scale)


class Shares(Fine):
    def __deepcopy__(self, memo):
        return self


class Forgets(Fine):
    """Adds what its constructor does not know of."""

    def forward(self, x):
        return super().forward(x) + getattr(self, "shift", 0.0)


class Differs(Fine):
    """Computes another thing in training than a graph of it can."""

    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return super().forward(x) + type(self).calls


def case(module, **fields):
    registry = Registry()
    for spec in specs():
        registry.add(spec, owner="torch-dag-core")
    for normalizer in normalizers():
        registry.add_normalizer(normalizer, owner="torch-dag-core")
    cls = type(module)
    registry.add(OpSpec(key=f"sample.{cls.__name__.lower()}", target=cls, codec=ModuleCodec(cls), **fields), owner="me")
    spec = registry.for_class(cls)
    return Case(spec, 0, module, (torch.linspace(-1, 1, 8).view(2, 4),), registry)


def failures(given):
    found = {}
    for check in CHECKS:
        try:
            if check.applies(given):
                check.run(given)
        except ContractError as error:
            found[check.name] = str(error)
    return found


def test_a_good_module_passes():
    assert failures(case(Fine())) == {}


def test_an_overwritten_input_is_found():
    assert "an input was overwritten" in failures(case(Overwrites()))["runs"]


def test_a_shared_copy_is_found():
    found = failures(case(Shares()))
    assert "it shares tensors with the original" in found["clones"]
    assert "it shares tensors with the original" in found["deepcopies"]


def test_a_configuration_that_says_too_little_is_found():
    module = Forgets()
    module.shift = 1.0
    assert failures(case(module)).keys() == {"saves"}


def test_a_module_that_remembers_its_calls_is_found():
    assert failures(case(Differs())).keys() >= {"runs", "clones", "saves"}


def test_an_expansion_that_computes_another_thing_is_found():
    found = failures(case(Fine(), expand=lambda module: nn.ReLU()))
    assert found["expands"].startswith("sample.fine-0: expanded: Tensor-likes are not")


@pytest.mark.parametrize(
    "record",
    [
        OpSpec(key="sample.fine", target=Fine),
        AtomicSpec(target="sample.Fine"),
        Normalizer(functions=("fine",), normalize=print),
    ],
)
def test_a_record_without_examples_fails(record):
    (test,) = record_tests(record, Registry())
    with pytest.raises(ContractError, match="has no examples; pass examples="):
        test()


def test_a_plugin_that_is_not_installed_is_one_failing_test(site):
    (test,) = contract("nobody")
    with pytest.raises(PluginLoadError, match="no plugin or distribution named 'nobody' is installed"):
        test()


class Metafunc:
    """What pytest hands to the kit of a test without the marker."""

    fixturenames = ("torch_dag_contract",)

    class definition:
        get_closest_marker = staticmethod(lambda name: None)


def test_the_marker_is_required():
    with pytest.raises(ValueError, match=r"needs @pytest\.mark\.torch_dag_plugin\(NAME OF THE PLUGIN\)"):
        pytest_generate_tests(Metafunc())
