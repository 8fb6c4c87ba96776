"""The author's kit finds what is wrong with a module, a codec or a plugin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion import normalizers
from torch_dag_core.ops.arithmetic import Mul
from torch_dag_core.ops.tensors import FreeParameter
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry
from torch_dag_core.testing import CHECKS, Case, ContractError, pytest_generate_tests
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


INPUTS = (torch.linspace(-1, 1, 8).view(2, 4),)


def vocabulary():
    registry = Registry()
    for spec in specs():
        registry.add(spec, owner="torch-dag-core")
    for normalizer in normalizers():
        registry.add_normalizer(normalizer, owner="torch-dag-core")
    return registry


def case(module, **fields):
    registry = vocabulary()
    cls = type(module)
    registry.add(OpSpec(key=f"sample.{cls.__name__.lower()}", target=cls, codec=ModuleCodec(cls), **fields), owner="me")
    spec = registry.for_class(cls)
    return Case(spec, 0, module, INPUTS, registry)


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


def atomic_case(target=Fine, **fields):
    registry = vocabulary()
    registry.add_atomic(AtomicSpec(target=target, **fields), owner="me")
    (spec,) = registry.atomic_specs()
    return Case(spec, 0, Fine(), INPUTS, registry)


def as_scaled(call, module, x):
    scale = FreeParameter((4,), torch.float32, value=module.scale)
    return call.emit(Mul(), x, call.emit(scale))


def as_shared(call, module, x):
    return call.emit(Shares(), x)


def as_forgotten(call, module, x):
    forgets = Forgets()
    forgets.shift = 1.0
    return call.emit(forgets, x)


@pytest.mark.parametrize("fields", [{"convert": as_scaled}, {"trace_as": lambda module, x: x * module.scale}, {}])
def test_a_good_atomic_record_passes_every_check_of_its_graph(fields):
    given = atomic_case(**fields)
    assert failures(given) == {}
    applied = {check.name for check in CHECKS if check.applies(given)}
    assert applied == {"traces", "clones", "deepcopies", "saves", "compiles", "costs"}


@pytest.mark.parametrize("fields", [{"target": "sample.Missing"}, {"accepts": lambda module: False}])
def test_an_atomic_record_that_does_not_hold_for_its_example_is_found(fields):
    found = failures(atomic_case(trace_as=lambda module, x: x * module.scale, **fields))
    assert found.keys() == {"traces"}
    assert "does not use the record; it became DagModule(" in found["traces"]


def test_an_atomic_record_that_computes_another_thing_is_found():
    found = failures(atomic_case(trace_as=lambda module, x: x + module.scale))
    assert ": converted, in evaluation: Tensor-likes are not" in found["traces"]


def test_what_is_wrong_with_the_graph_of_an_atomic_record_is_found():
    found = failures(atomic_case(convert=as_shared))
    assert found.keys() == {"clones", "deepcopies"}


def test_a_graph_that_a_file_does_not_bring_back_is_found():
    given = atomic_case(convert=as_forgotten)
    given.registry.add(OpSpec(key="sample.forgets", target=Forgets, codec=ModuleCodec(Forgets)), owner="me")
    assert failures(given).keys() == {"traces", "saves"}


@pytest.mark.parametrize("function", ["mul", "add"])
def test_a_normalizer_that_never_answers_is_found(function):
    registry = vocabulary()
    record = Normalizer(functions=(function,), normalize=lambda *_: NotImplemented)
    registry.add_normalizer(record, owner="me")
    found = failures(Case(record, 0, Fine(), INPUTS, registry))
    assert found.keys() == {"traces"}
    assert "does not use the record" in found["traces"]


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


class Metafunc:
    """What pytest hands to the kit of a test without the marker."""

    fixturenames = ("torch_dag_contract",)

    class definition:
        get_closest_marker = staticmethod(lambda name: None)


def test_the_marker_is_required():
    with pytest.raises(ValueError, match=r"needs @pytest\.mark\.torch_dag_plugin\(NAME OF THE PLUGIN\)"):
        pytest_generate_tests(Metafunc())
