"""Models that ask for the state of their caller: gradients, inference mode, autocast, default type."""

from __future__ import annotations

import functools
from threading import Thread

import pytest
import torch
from torch import is_autocast_enabled as autocast_is_on
from torch import is_grad_enabled as gradients_are_on
from torch import is_inference_mode_enabled as inference_is_on
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, TraceError
from torch_dag_core.graph.conditions import check
from torch_dag_core.serialization import load

ASKED = {"now": torch.is_grad_enabled}


def rows(batch=2):
    return torch.randn(batch, 6)


class Holding(nn.Module):
    """Ask through an attribute of the class, of the module, a static method or a default."""

    of_class = torch.is_grad_enabled
    static = staticmethod(torch.is_inference_mode_enabled)

    def __init__(self, ask):
        super().__init__()
        self.fc, self.of_module, self.ask = nn.Linear(6, 6), torch.is_grad_enabled, ask

    def forward(self, x):
        x = self.fc(x)
        return x * 2 if self.ask(self) else x


def by_default(_, asks=torch.is_grad_enabled):
    return asks()


def by_keyword(_, *, asks=torch.is_grad_enabled):
    return asks()


def closed_over():
    asks = torch.is_grad_enabled
    return lambda _: asks()


HELD = {
    "an alias": lambda _: gradients_are_on(),
    "an alias for inference": lambda _: inference_is_on(),
    "an item": lambda _: ASKED["now"](),
    "an attribute": lambda net: net.of_module(),
    "an attribute of the class": lambda _: Holding.of_class(),
    "a static method": lambda net: net.static(),
    "a default": by_default,
    "a default of a keyword": by_keyword,
    "a closure": closed_over(),
}


@pytest.mark.parametrize("name", HELD)
def test_decisions_by_the_mode_are_refused_however_the_function_is_reached(name):
    with pytest.raises(
        TraceError, match=rf"computes with torch\.is_\w+_enabled\(\), at {__file__}:\d+, .* self\.training"
    ):
        build_from_unstructured_module(Holding(HELD[name]), rows())
    assert gradients_are_on is ASKED["now"] is torch.is_grad_enabled is Holding.of_class
    assert inference_is_on is torch.is_inference_mode_enabled is Holding.static
    assert by_default.__defaults__ == by_default.__defaults__ == (torch.is_grad_enabled,)
    assert by_keyword.__kwdefaults__ == {"asks": torch.is_grad_enabled}


REFUSED_FLAGS = {
    "requires_grad": lambda x: x * 2 if x.requires_grad else x,
    "requires_grad of what follows": lambda x: x * 2 if (x + 1).sin().requires_grad else x,
    "a leaf": lambda x: x * 2 if x.is_leaf else x,
    "a node of autograd": lambda x: x * 2 if x.grad_fn is not None else x,
    "an inference tensor": lambda x: x * 2 if x.is_inference() else x,
    "a factor": lambda x: x * (1 + x.requires_grad),
}


@pytest.mark.parametrize("name", REFUSED_FLAGS)
def test_decisions_by_gradients_of_computed_tensors_are_refused_by_line(name, model_of):
    line = REFUSED_FLAGS[name].__code__.co_firstlineno
    with pytest.raises(TraceError, match=rf"requires_grad of a tensor, at {__file__}:{line}, .* self\.training"):
        build_from_unstructured_module(model_of(REFUSED_FLAGS[name]), rows())


def _hook(x):
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * 0)
    return x * 2


def test_hooks_on_gradients_are_refused(model_of):
    with pytest.raises(TraceError, match=r"register_hook|register a hook|requires_grad of a tensor"):
        build_from_unstructured_module(model_of(_hook), rows())


def restored(x):
    with torch.set_grad_enabled(x.requires_grad or gradients_are_on()):
        return x * 2


FAITHFUL_FLAGS = {
    "both answers lead to one result": lambda x: x * 2 if x.requires_grad else x.mul(2),
    "a detached tensor": lambda x: x * 2 if x.detach().requires_grad else x * 3,
    "an integer": lambda x: x * 2 if x.argmax(1).requires_grad else x * 3,
    "gradients as they are": restored,
}


@pytest.mark.parametrize("name", FAITHFUL_FLAGS)
def test_questions_that_decide_nothing_convert(name, faithful):
    faithful(FAITHFUL_FLAGS[name], rows, relative=1e-6)


class OfInput(nn.Module):
    """Add what the input has, where it needs no gradient."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(x) if x.requires_grad else self.fc(x) + x


def test_a_decision_by_the_gradient_of_an_input_becomes_a_condition(tmp_path):
    model, x = OfInput(), rows()
    dag = build_from_unstructured_module(model, x)
    assert list(map(str, dag.input_spec.assumptions)) == ["not input 0.requires_grad"]
    dag.save(tmp_path / "dag.safetensors")
    for graph in (dag, load(tmp_path / "dag.safetensors")):
        assert torch.equal(graph(x), model(x))
        with pytest.raises(InputError, match=r"holds only where not input 0\.requires_grad"):
            graph(x.clone().requires_grad_())


def in_half(x):
    return x.to(torch.get_autocast_dtype("cpu")).float() if torch.is_autocast_enabled("cpu") else x


SETTINGS = {
    "autocast": (lambda x: x * 2 if torch.is_autocast_enabled("cpu") else x, "not torch.is_autocast_enabled('cpu')"),
    "autocast by an alias": (lambda x: x + autocast_is_on("cpu"), "not torch.is_autocast_enabled('cpu')"),
    "autocast of a GPU": (lambda x: x * 2 if autocast_is_on() else x, "not torch.is_autocast_enabled('cuda')"),
    "the type of autocast": (in_half, "not torch.is_autocast_enabled('cpu')"),
    "deterministic algorithms": (
        lambda x: x * 2 if torch.are_deterministic_algorithms_enabled() else x,
        "not torch.are_deterministic_algorithms_enabled()",
    ),
    "the default type": (
        lambda x: x + torch.zeros(6, dtype=torch.get_default_dtype()), "torch.get_default_dtype() == torch.float32"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_decides_becomes_a_condition(name, reloaded):
    function, condition = SETTINGS[name]
    dag = reloaded(function, rows, relative=1e-6)
    assert condition in map(str, dag.input_spec.assumptions)


def test_the_graph_refuses_another_setting_by_name(model_of):
    dag = build_from_unstructured_module(model_of(SETTINGS["autocast"][0]), rows())
    with (
        torch.autocast("cpu"),
        pytest.raises(InputError, match=r"holds only where not torch\.is_autocast_enabled\('cpu'\)"),
    ):
        dag(rows())
    compiled = torch.compile(dag, fullgraph=True, backend="eager")
    assert torch.equal(compiled(rows(3)).isnan(), torch.zeros(3, 6, dtype=torch.bool))


def test_the_default_type_is_checked_at_every_call(model_of):
    dag = build_from_unstructured_module(model_of(SETTINGS["the default type"][0]), rows())
    x = rows()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(InputError, match=r"torch\.get_default_dtype\(\) == torch\.float32"):
            dag(x)
    finally:
        torch.set_default_dtype(torch.float32)


def test_settings_that_decide_nothing_leave_no_condition(faithful):
    dag = faithful(lambda x: x * 2 if autocast_is_on("cpu") in (True, False) else x, rows)
    assert dag.input_spec.assumptions == ()


def test_other_threads_get_true_answers(faithful):
    found = []

    def run(x):
        thread = Thread(target=lambda: found.append((gradients_are_on(), autocast_is_on("cpu"), inference_is_on())))
        thread.start()
        thread.join()
        return x * 2

    faithful(run, rows, training=False)
    assert set(found) == {(True, False, False)}


MALFORMED = [
    ("eq", ("setting", "the weather"), 0),
    ("eq", ("setting", "autocast cpu"), 2),
    ("eq", ("requires_grad", 1), 0),
    ("eq", ("requires_grad", True), 0),
    ("ne", ("setting", "autocast cpu"), 0),
    ("eq", ("add", ("setting", "autocast cpu"), 1), 1),
]


@pytest.mark.parametrize("condition", MALFORMED)
def test_malformed_conditions_on_the_caller_are_refused(condition):
    with pytest.raises(ValueError, match="is not a"):
        check(condition, inputs=1)


def test_partial_functions_of_torch_still_convert(faithful):
    faithful(functools.partial(torch.add, alpha=2, other=1.0), rows)
