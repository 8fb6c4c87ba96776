"""Plugins that fail when they are used are named by one message each; the rest works."""

from __future__ import annotations

import re
import sys
import tempfile

import click
import pytest
import torch
from torch import nn

from torch_dag_core.algorithms.algorithm import algorithms
from torch_dag_core.analysis.costs import call_flops
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import PluginError, PluginWarning, SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.loading import default_registry, first_answer, named_contributions
from torch_dag_core.testing import ContractError, contract, plugin_cases

ORIGIN = r"plugin 'bad' \(sample-bad 1\.0\) "
OWNER = r"'sample-bad' 1\.0"


def bad(name):
    return getattr(sys.modules["sample_module_bad"], name)


def convert():
    return build_from_unstructured_module(nn.Sequential(bad("Layer")(), bad("Caller")()), torch.ones(2, 3))


def price():
    return call_flops(default_registry().get("bad.layer"), bad("Layer")(), [(2, 3)], [(2, 3)], {})


def save():
    dag = DagModule()
    dag.set_output(dag.add_vertex("layer", bad("Layer")(), [dag.add_input("x")]))
    with tempfile.TemporaryDirectory() as folder:
        dag.save(f"{folder}/file.safetensors")


def examples():
    return plugin_cases("bad")


USED = {
    "normalizer raises": (
        "normalizer(lambda call, x: 1 / 0)",
        convert,
        "normalizer of 'sample_function' of .* raised ZeroDivision",
    ),
    "normalizer returns a module": (
        "normalizer(lambda call, x: Layer())",
        convert,
        "returned Layer.., not what call.emit",
    ),
    "normalizer returns nothing": (
        "normalizer(lambda call, x: None)",
        convert,
        "returned None, not what call.emit returned",
    ),
    "normalizer removes vertices": (
        (
            "dag = lambda call: call.builder.dag\n"
            "normalizer(lambda call, x: (x.vertex, dag(call).remove_unused(call.emit(Layer(), x).vertex),"
            " [dag(call).remove_vertex(v) for v in dag(call).inner_vertices], x)[-1])"
        ),
        convert,
        "removed vertices of the graph; it may only emit new ones",
    ),
    "converter raises": ("atomic(convert=lambda call, module, x: 1 / 0)", convert, "the converter of .*Layer.* raised"),
    "converter returns text": ("atomic(convert=lambda call, module, x: 'x')", convert, "of .* returned 'x'"),
    "accepts raises": ("atomic(accepts=lambda module: module.depth)", convert, "accepts.. for .*Layer.* Attribute"),
    "FLOPs rule raises": (
        "rule(lambda inputs: inputs[7])",
        price,
        "the FLOPs rule of 'bad.layer' of .* raised IndexError",
    ),
    "FLOPs are negative": ("rule(lambda inputs: -5)", price, "returned -5, not a number from 0 up"),
    "FLOPs are no number": ("rule(lambda inputs: float('nan'))", price, "returned nan, not an int from 0 up"),
    "FLOPs are broken": (
        "rule(lambda inputs: 0.5)",
        price,
        "returned 0.5, not an int from 0 up, for sizes that are ints",
    ),
    "FLOPs are text": ("rule(lambda inputs: '12')", price, "returned '12', not a number from 0 up"),
    "FLOPs are missing": ("rule(lambda inputs: None)", price, "returned None, not a number from 0 up"),
    "normalizer exits": ("normalizer(lambda call, x: sys.exit(2))", convert, "raised SystemExit: 2"),
    "normalizer gives up": ("normalizer(lambda call, x: throw(GivesUp('now')))", convert, "raised GivesUp: now"),
    "converter exits": (
        "atomic(convert=lambda call, module, x: sys.exit())",
        convert,
        "the converter of .* SystemExit",
    ),
    "accepts exits": ("atomic(accepts=lambda module: sys.exit())", convert, "accepts.. for .*Layer.* SystemExit"),
    "FLOPs rule exits": ("rule(lambda inputs: sys.exit())", price, "the FLOPs rule of 'bad.layer' of .* SystemExit"),
    "config exits": ("codec(lambda module: sys.exit(4))", save, "cannot read its configuration: 4"),
    "build gives up": ("codec(build=lambda config: throw(GivesUp('x')))", save, "cannot be built from its configura"),
    "config is a list": ("codec(lambda module: [3])", save, r"cannot read its configuration: its codec returned \[3\]"),
    "config holds a module": (
        "codec(lambda module: {'width': module})",
        save,
        "constant 'width' .* cannot be saved: a Layer",
    ),
    "config raises": ("codec(lambda module: Unshowable2)", save, "cannot read its configuration: name 'Unshowable2'"),
    "build gives another class": (
        "codec(build=lambda config: nn.ReLU())",
        save,
        "the codec of 'bad.layer' built a ReLU",
    ),
    "build exits": (
        "codec(build=lambda config: throw(LookupError('gone')))",
        save,
        "cannot be built from its configuration.*gone",
    ),
    "build forgets": ("codec(lambda module: {'width': id(module)})", save, "has the configuration"),
    "examples raise": ("op(examples=lambda: 1 / 0)", examples, r"examples.. of 'bad.layer' of .* ZeroDivisionError"),
    "examples are modules": ("op(examples=lambda: [Layer()])", examples, r"returned Layer.., not pairs"),
}


@pytest.mark.parametrize("kind", USED)
def test_a_plugin_is_named_when_it_fails_at_work(install, check_the_rest, kind):
    source, use, match = USED[kind]
    install(source)
    default_registry()
    with pytest.raises((PluginError, SerializationError), match=match) as caught:
        use()
    assert re.search(OWNER, str(caught.value))
    assert str(caught.value).count("\n") == 0
    check_the_rest()


OTHER_HOOKS = {
    "algorithms with settings that change": (
        "add('algorithms', lambda: [AlgorithmSpec(name='a', summary='', config=dict, create=dict)])",
        algorithms,
        "raised ValueError in torch_dag_algorithms: the config of algorithm 'a' must be a frozen dataclass",
    ),
    "a function as command": (
        "add('commands', lambda: [print])",
        lambda: named_contributions("torch_dag_commands", click.Command),
        "returned a builtin_function_or_method .* from torch_dag_commands, not a Command",
    ),
    "a command without a name": (
        "add('commands', lambda: [click.Command(None)])",
        lambda: named_contributions("torch_dag_commands", click.Command),
        "adds a Command without a name through torch_dag_commands",
    ),
}
ANSWERS = {
    "a list of inputs": ("example_inputs", "[1]", {"model": nn.ReLU()}, "returned a list .*, not a tuple"),
    "a string as model": (
        "model_source", "'resnet'", {"reference": "x:y", "options": {}}, "returned a str .*, not a Module",
    ),
    "an exit": ("example_inputs", "sys.exit()", {"model": nn.ReLU()}, "raised SystemExit in torch_dag_example_inputs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_HOOKS)
def test_what_a_hook_adds_is_refused(install, check_the_rest, kind):
    source, use, match = OTHER_HOOKS[kind]
    install(source)
    with pytest.warns(PluginWarning, match=ORIGIN + match):
        assert not any(name in (None, "a") for name in use())
    check_the_rest()


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_a_hook_answers_is_refused(install, check_the_rest, kind):
    name, answer, arguments, match = ANSWERS[kind]
    install(f"add({name!r}, lambda: {answer})")
    with pytest.raises(PluginError, match=ORIGIN + match):
        first_answer(f"torch_dag_{name}", {"example_inputs": tuple, "model_source": nn.Module}[name], **arguments)
    check_the_rest()


# Interrupts belong to the user ---------------------------------------------------------------------------------------

INTERRUPTED = {
    "normalizer": ("normalizer(lambda call, x: throw(KeyboardInterrupt))", convert),
    "converter": ("atomic(convert=lambda call, module, x: throw(KeyboardInterrupt))", convert),
    "rule": ("rule(lambda inputs: throw(KeyboardInterrupt))", price),
    "codec": ("codec(lambda module: throw(KeyboardInterrupt))", save),
    "examples": ("op(examples=lambda: throw(KeyboardInterrupt))", examples),
}


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_an_interrupt_inside_a_plugin_passes_and_leaves_nothing_behind(install, check_the_rest, kind):
    source, use = INTERRUPTED[kind]
    install(source)
    default_registry()
    call = nn.Module.__call__
    with pytest.raises(KeyboardInterrupt):
        use()
    assert nn.Module.__call__ is call
    check_the_rest()


# What only the contract finds -----------------------------------------------------------------------------------------

LIES = {
    "an expansion that costs more": (
        "lambda module, inputs, outputs, parameters: 1",
        "its FLOPs rule says 1, the ops of its expansion add up to 6",
    ),
    "a rule that counts its calls": (
        "lambda module, inputs, outputs, parameters, calls=[]: calls.append(1) or len(calls)",
        "two calls of its FLOPs rule gave 1 and 2",
    ),
    "a rule that changes the module": (
        "lambda module, inputs, outputs, parameters: module.add_module('more', nn.ReLU()) or 6",
        "its FLOPs rule made the module Layer",
    ),
}


@pytest.mark.parametrize("kind", LIES)
def test_the_contract_finds_lies_about_cost(install, kind):
    flops, match = LIES[kind]
    install(
        "class Twice(nn.Module):\n    def forward(self, x): return x * 2\n"
        f"op(flops={flops}, codec=Codec(), expand=lambda module: Twice(),"
        " examples=lambda: [(Layer(), (torch.ones(2, 3),))])"
    )
    tests = {test.name.rpartition("-")[2]: test for test in contract("bad")}
    assert tests["saves"]() is None
    found = []
    for name in ("costs", "expands"):
        try:
            tests[name]()
        except ContractError as error:
            found.append(str(error))
    assert any(match in message for message in found)
