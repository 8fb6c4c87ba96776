"""Plugins that are broken or mean harm: each gives one clear message that names it, and the rest works."""

from __future__ import annotations

import re
import sys
import warnings

import click
import pytest
import torch
from torch import nn

from torch_dag_core.algorithms.algorithm import algorithms
from torch_dag_core.analysis.costs import call_flops
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import PluginError, PluginWarning, SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.loading import default_registry, first_answer, list_plugins, named_contributions
from torch_dag_core.testing import ContractError, contract, plugin_cases

ORIGIN = r"plugin 'bad' \(sample-bad 1\.0\) "
OWNER = r"'sample-bad' 1\.0"
PREPARE = """
import sys
import torch
from dataclasses import dataclass
from torch_dag_core.algorithms.algorithm import AlgorithmSpec
from torch_dag_core.plugins.codecs import ModuleCodec
from torch.overrides import handle_torch_function, has_torch_function_unary
import click

class Layer(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.width = width

    def forward(self, x):
        return x * 2

def sample_function(x):
    if has_torch_function_unary(x):
        return handle_torch_function(sample_function, (x,), x)
    return x * 2

class Caller(nn.Module):
    def forward(self, x):
        return sample_function(x)

class Unshowable(Exception):
    def __str__(self):
        raise RuntimeError("no")

class Unprintable:
    __repr__ = Unshowable.__str__

class Codec:
    def config(self, module):
        return {"width": module.width}

    def build(self, config):
        return Layer(**config)
"""


def hook(name, body):
    return f"@hookimpl\ndef torch_dag_{name}(): {body}"


def op(**changes):
    fields = {"key": "'bad.layer'", "target": "Layer", **changes}
    return hook("ops", f"return [OpSpec({', '.join(f'{name}={value}' for name, value in fields.items())})]")


def install(site, source, **options):
    site.install("bad", PREPARE + source, **options)


@pytest.fixture
def good(site, op_source):
    site.install("good", op_source("good.op"))
    return site


def check_the_rest():
    """The other plugin and the core do their work, without another word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry = default_registry()
        assert registry.find("good.op") is not None
        assert registry.get("core.linear").owner == "torch-dag-core"
        assert {spec.key for spec in registry.ops() if spec.owner == "sample-bad"} <= {"bad.layer"}
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        x = torch.ones(2, 3)
        assert torch.equal(build_from_unstructured_module(model, x)(x), model(x))


# Left out as a whole -------------------------------------------------------------------------------------------------

LEFT_OUT = {
    "exits on import": ("sys.exit(3)", "cannot be imported: SystemExit: 3"),
    "recurses on import": ("def f(): f()\nf()", "cannot be imported: RecursionError: maximum"),
    "raises what cannot be shown": ("raise Unshowable", r"Unshowable: \(its message cannot be shown\)"),
    "wants an odd API": ("TORCH_DAG_HOOK_API = 'three'", "for version three of the hooks, this .* has version 1"),
    "shadows a core key": (op(key="'core.linear'"), "'core.linear' outside of its namespace; call it 'bad.linear'"),
    "takes the users' namespace": (op(key="'user.layer'"), "'user.layer' outside of its namespace"),
    "has no namespace": (op(key="'layer'"), "key of OpSpec must be a string such as 'namespace.op', not 'layer'"),
    "has a number as key": (op(key="7"), "key of OpSpec must be a string .*, not 7"),
    "takes a core class": (op(target="nn.Linear"), "module class Linear is registered by 'torch-dag-core' and again"),
    "takes another's key": (op(key="'good.op'"), "adds the op 'good.op' outside of its namespace; call it 'bad.op'"),
    "adds a key twice": (
        "class More(Layer): pass\n" + hook("ops", "return [OpSpec(key='bad.layer', target=c) for c in (Layer, More)]"),
        "op key 'bad.layer' is registered by 'sample-bad' and again by 'sample-bad'",
    ),
    "gives an instance": (op(target="Layer()"), r"target of OpSpec must be a subclass of nn\.Module, not Layer\(\)"),
    "gives a function": (op(target="sample_function"), r"target of OpSpec must be a subclass of nn\.Module"),
    "gives a codec class": (op(codec="Codec"), "codec of OpSpec must be None or an object with config"),
    "gives half a codec": (op(codec="Layer()"), "codec of OpSpec must be None or an object with config"),
    "gives functions as text": (op(functions="'relu'"), "functions of OpSpec must be a tuple of function names"),
    "takes a core function": (op(functions="('cat',)"), "function 'cat' is registered by 'torch-dag-core' and again"),
    "prices with a number": (op(flops="7"), "flops of OpSpec must be None or callable, not 7"),
    "has version 0": (op(version="0"), "version of OpSpec must be an int of at least 1, not 0"),
    "has version True": (op(version="True"), "version of OpSpec must be an int of at least 1, not True"),
    "migrates with text": (op(migrate="'x'"), "migrate of OpSpec must be None or callable, not 'x'"),
    "has a list of examples": (op(examples="[]"), r"examples of OpSpec must be None or callable, not \[\]"),
    "misspells a field": (op(flop="None"), "raised TypeError in torch_dag_ops: .*unexpected keyword argument 'flop'"),
    "names no class": (hook("atomic_modules", "return [AtomicSpec(target='Layer')]"), "target of AtomicSpec must be"),
    "takes a core module": (
        hook("atomic_modules", "return [AtomicSpec(target=nn.MultiheadAttention)]"),
        "atomic module .*MultiheadAttention is registered by 'torch-dag-core' and again by 'sample-bad'",
    ),
    "normalizes nothing": (
        hook("normalizers", "return [Normalizer(functions=(), normalize=print)]"),
        "functions of Normalizer must be a tuple of at least one function name",
    ),
    "normalizes with a number": (
        hook("normalizers", "return [Normalizer(functions=('f',), normalize=1)]"),
        "normalize of Normalizer must be callable, not 1",
    ),
    "exits in a hook": (hook("ops", "sys.exit('bye')"), "raised SystemExit in torch_dag_ops: bye"),
    "recurses in a hook": (hook("ops", "return torch_dag_ops()"), "raised RecursionError in torch_dag_ops"),
    "fails unshowably in a hook": (hook("ops", "raise Unshowable"), "its message cannot be shown"),
    "returns a number": (hook("ops", "return 3"), "raised TypeError in torch_dag_ops: 'int' object is not iterable"),
    "returns a dict": (hook("ops", "return {'bad.layer': Layer}"), r"returned a str .* from torch_dag_ops"),
    "returns the unprintable": (hook("ops", "return [Unprintable()]"), "returned a Unprintable .*, not a OpSpec"),
    "takes an argument too many": ("@hookimpl\ndef torch_dag_ops(registry, dag): return []", "does not fit a hook"),
    "is no hook at all": ("@hookimpl\ndef torch_dag_everything(): return []", "which is no hook"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_plugin_is_left_out(good, kind):
    source, match = LEFT_OUT[kind]
    install(good, source)
    with pytest.warns(PluginWarning, match=ORIGIN) as caught:
        default_registry()
    (message,) = [str(warning.message) for warning in caught]
    assert re.search(match, message)
    assert message.count("\n") == 0
    assert message.endswith("To do without it, uninstall it or set TORCH_DAG_PLUGINS=good")
    assert [info.name for info in list_plugins() if info.error is not None] == ["bad"]
    check_the_rest()


ENTRY_POINTS = {
    "names nothing": (":nothing", "", "cannot be imported: AttributeError"),
    "cannot be looked into": (
        ":plugin",
        "class Plugin:\n    def __dir__(self): raise KeyError('mine')\nplugin = Plugin()",
        "cannot be looked into: KeyError: 'mine'",
    ),
    "is a number": (":plugin", "plugin = 3", None),
}


@pytest.mark.parametrize("kind", ENTRY_POINTS)
def test_an_entry_point_that_is_no_plugin(good, kind):
    attribute, source, match = ENTRY_POINTS[kind]
    install(good, source, attribute=attribute)
    if match is not None:
        with pytest.warns(PluginWarning, match=ORIGIN + match):
            default_registry()
    check_the_rest()


# Found out when it is used --------------------------------------------------------------------------------------------


def bad(name):
    return getattr(sys.modules["sample_module_bad"], name)


def convert():
    return build_from_unstructured_module(nn.Sequential(bad("Layer")(), bad("Caller")()), torch.ones(2, 3))


def price():
    return call_flops(default_registry().get("bad.layer"), bad("Layer")(), [(2, 3)], [(2, 3)], {})


def save(path="/dev/null"):
    dag = DagModule()
    dag.set_output(dag.add_vertex("layer", bad("Layer")(), [dag.add_input("x")]))
    dag.save(path)


def examples():
    return plugin_cases("bad")


def codec(config="return {'width': 3}", build="return Layer(**config)"):
    return (
        f"class Bad:\n    def config(self, module): {config}\n    def build(self, config): {build}\n"
        + op(codec="Bad()")
    )  # fmt: skip


def normalizer(body):
    return f"def normalize(call, x): {body}\n" + hook(
        "normalizers", "return [Normalizer(functions=('sample_function',), normalize=normalize)]"
    )


def atomic(**fields):
    given = ", ".join(f"{name}={value}" for name, value in fields.items())
    return hook("atomic_modules", f"return [AtomicSpec(target=Layer, {given})]") + "\n" + normalizer("return x")


def rule(body):
    return f"def rule(module, inputs, outputs, parameters): {body}\n" + op(flops="rule")


USED = {
    "normalizer raises": (normalizer("1 / 0"), convert, "normalizer of 'sample_function' of .* raised ZeroDivision"),
    "normalizer returns a module": (normalizer("return Layer()"), convert, "returned Layer.., not what call.emit"),
    "normalizer returns nothing": (normalizer("return None"), convert, "returned None, not what call.emit returned"),
    "normalizer removes vertices": (
        normalizer("x.vertex; call.builder.dag.remove_unused(call.emit(Layer(), x).vertex) or "
                   "[call.builder.dag.remove_vertex(v) for v in call.builder.dag.inner_vertices]; return x"),
        convert,
        "removed vertices of the graph; it may only emit new ones",
    ),
    "converter raises": (atomic(convert="lambda call, module, x: 1 / 0"), convert, "the converter of .*Layer.* raised"),
    "converter returns text": (atomic(convert="lambda call, module, x: 'x'"), convert, "of .* returned 'x'"),
    "accepts raises": (atomic(accepts="lambda module: module.depth"), convert, "accepts.. for .*Layer.* Attribute"),
    "FLOPs rule raises": (rule("return inputs[7]"), price, "the FLOPs rule of 'bad.layer' of .* raised IndexError"),
    "FLOPs are negative": (rule("return -5"), price, "returned -5, not a number from 0 up"),
    "FLOPs are no number": (rule("return float('nan')"), price, "returned nan, not an int from 0 up"),
    "FLOPs are broken": (rule("return 0.5"), price, "returned 0.5, not an int from 0 up, for sizes that are ints"),
    "FLOPs are text": (rule("return '12'"), price, "returned '12', not a number from 0 up"),
    "FLOPs are missing": (rule("return None"), price, "returned None, not a number from 0 up"),
    "config is a list": (codec("return [3]"), save, r"cannot read its configuration: its codec returned \[3\]"),
    "config holds a module": (codec("return {'width': module}"), save, "constant 'width' .* cannot be saved: a Layer"),
    "config raises": (codec("raise Unshowable2"), save, "cannot read its configuration: name 'Unshowable2'"),
    "build gives another class": (codec(build="return nn.ReLU()"), save, "the codec of 'bad.layer' built a ReLU"),
    "build exits": (codec(build="raise LookupError('gone')"), save, "cannot be built from its configuration.*gone"),
    "build forgets": (codec("return {'width': id(module)}"), save, "has the configuration"),
    "examples raise": (op(examples="lambda: 1 / 0"), examples, r"examples.. of 'bad.layer' of .* ZeroDivisionError"),
    "examples are modules": (op(examples="lambda: [Layer()]"), examples, r"returned Layer.., not pairs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", USED)
def test_a_plugin_is_named_when_it_fails_at_work(good, kind):
    source, use, match = USED[kind]
    install(good, source)
    default_registry()
    with pytest.raises((PluginError, SerializationError), match=match) as caught:
        use()
    assert re.search(OWNER, str(caught.value))
    assert str(caught.value).count("\n") == 0
    check_the_rest()


# Other hooks ----------------------------------------------------------------------------------------------------------

OTHER_HOOKS = {
    "algorithms with settings that change": (
        hook("algorithms", "return [AlgorithmSpec(name='a', summary='', config=dict, create=dict)]"),
        algorithms,
        "raised ValueError in torch_dag_algorithms: the config of algorithm 'a' must be a frozen dataclass",
    ),
    "a function as command": (
        hook("commands", "return [print]"),
        lambda: named_contributions("torch_dag_commands", click.Command),
        "returned a builtin_function_or_method .* from torch_dag_commands, not a Command",
    ),
    "a command without a name": (
        hook("commands", "return [click.Command(None)]"),
        lambda: named_contributions("torch_dag_commands", click.Command),
        "adds a Command without a name through torch_dag_commands",
    ),
}
ANSWERS = {
    "a list of inputs": ("example_inputs", "return [1]", {"model": nn.ReLU()}, "returned a list .*, not a tuple"),
    "a string as model": (
        "model_source", "return 'resnet'", {"reference": "x:y", "options": {}}, "returned a str .*, not a Module",
    ),
    "an exit": ("example_inputs", "sys.exit()", {"model": nn.ReLU()}, "raised SystemExit in torch_dag_example_inputs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_HOOKS)
def test_what_a_hook_adds_is_refused(good, kind):
    source, use, match = OTHER_HOOKS[kind]
    install(good, source)
    with pytest.warns(PluginWarning, match=ORIGIN + match):
        assert not any(name in (None, "a") for name in use())
    check_the_rest()


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_a_hook_answers_is_refused(good, kind):
    name, body, arguments, match = ANSWERS[kind]
    install(good, f"@hookimpl\ndef torch_dag_{name}(): {body}")
    with pytest.raises(PluginError, match=ORIGIN + match):
        first_answer(f"torch_dag_{name}", {"example_inputs": tuple, "model_source": nn.Module}[name], **arguments)
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
def test_the_contract_finds_lies_about_cost(good, kind):
    flops, match = LIES[kind]
    source = "class Twice(nn.Module):\n    def forward(self, x): return x * 2\n" + op(
        flops=flops,
        codec="Codec()",
        expand="lambda module: Twice()",
        examples="lambda: [(Layer(), (torch.ones(2, 3),))]",
    )
    install(good, source)
    tests = {test.name.rpartition("-")[2]: test for test in contract("bad")}
    assert tests["saves"]() is None
    found = []
    for name in ("costs", "expands"):
        try:
            tests[name]()
        except ContractError as error:
            found.append(str(error))
    assert any(match in message for message in found)
