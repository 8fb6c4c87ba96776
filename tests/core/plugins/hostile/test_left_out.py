"""Plugins that cannot take part are left out as a whole, with one message each that names them; the rest works."""

from __future__ import annotations

import re

import pytest

from torch_dag_core.errors import PluginWarning
from torch_dag_core.plugins.loading import default_registry, list_plugins

ORIGIN = r"plugin 'bad' \(sample-bad 1\.0\) "
LEFT_OUT = {
    "exits on import": ("sys.exit(3)", "cannot be imported: SystemExit: 3"),
    "gives up on import": ("throw(GivesUp('no more'))", "cannot be imported: GivesUp: no more"),
    "recurses on import": ("def f(): f()\nf()", "cannot be imported: RecursionError: maximum"),
    "raises what cannot be shown": ("raise Unshowable", r"Unshowable: \(its message cannot be shown\)"),
    "wants an odd API": ("TORCH_DAG_HOOK_API = 'three'", "for version three of the hooks, this .* has version 1"),
    "shadows a core key": ("op(key='core.linear')", "'core.linear' outside of its namespace; call it 'bad.linear'"),
    "takes the users' namespace": ("op(key='user.layer')", "'user.layer' outside of its namespace"),
    "has no namespace": ("op(key='layer')", "key of OpSpec must be a string such as 'namespace.op', not 'layer'"),
    "has a number as key": ("op(key=7)", "key of OpSpec must be a string .*, not 7"),
    "takes a core class": ("op(target=nn.Linear)", "module class Linear is registered by 'torch-dag-core' and again"),
    "takes another's key": ("op(key='good.op')", "adds the op 'good.op' outside of its namespace; call it 'bad.op'"),
    "adds a key twice": (
        "class More(Layer): pass\nadd('ops', lambda: [OpSpec(key='bad.layer', target=c) for c in (Layer, More)])",
        "op key 'bad.layer' is registered by 'sample-bad' and again by 'sample-bad'",
    ),
    "gives an instance": ("op(target=Layer())", r"target of OpSpec must be a subclass of nn\.Module, not Layer\(\)"),
    "gives a function": ("op(target=sample_function)", r"target of OpSpec must be a subclass of nn\.Module"),
    "gives a codec class": ("op(codec=Codec)", "codec of OpSpec must be None or an object with config"),
    "gives half a codec": ("op(codec=Layer())", "codec of OpSpec must be None or an object with config"),
    "gives functions as text": ("op(functions='relu')", "functions of OpSpec must be a tuple of function names"),
    "takes a core function": ("op(functions=('cat',))", "function 'cat' is registered by 'torch-dag-core' and again"),
    "prices with a number": ("op(flops=7)", "flops of OpSpec must be None or callable, not 7"),
    "has version 0": ("op(version=0)", "version of OpSpec must be an int of at least 1, not 0"),
    "has version True": ("op(version=True)", "version of OpSpec must be an int of at least 1, not True"),
    "migrates with text": ("op(migrate='x')", "migrate of OpSpec must be None or callable, not 'x'"),
    "has a list of examples": ("op(examples=[])", r"examples of OpSpec must be None or callable, not \[\]"),
    "misspells a field": ("op(flop=None)", "raised TypeError in torch_dag_ops: .*unexpected keyword argument 'flop'"),
    "names no class": ("add('atomic_modules', lambda: [AtomicSpec(target='Layer')])", "target of AtomicSpec must be"),
    "takes a core module": (
        "add('atomic_modules', lambda: [AtomicSpec(target=nn.MultiheadAttention)])",
        "atomic module .*MultiheadAttention is registered by 'torch-dag-core' and again by 'sample-bad'",
    ),
    "decides on a core class": (
        "add('atomic_modules', lambda: [AtomicSpec(target=nn.Linear, convert=lambda call, module, x: x)])",
        r"adds torch\.nn\.modules\.linear\.Linear as an atomic module, which is a class of torch; register a class",
    ),
    "decides on a core class by name": (
        "add('atomic_modules', lambda: [AtomicSpec(target='torch.nn.modules.container.Sequential')])",
        r"adds torch\.nn\.modules\.container\.Sequential as an atomic module, which is a class of torch",
    ),
    "decides on graphs": (
        "from torch_dag_core.graph.dag import DagModule\nadd('atomic_modules', lambda: [AtomicSpec(target=DagModule)])",
        r"adds torch_dag_core\.graph\.dag\.DagModule as an atomic module, which is a class of torch-dag-core",
    ),
    "decides on another's op": (
        "add('atomic_modules', lambda: [AtomicSpec(target='sample_module_aa.Blur')])",
        r"adds sample_module_aa\.Blur as an atomic module, which is a class of an op of sample-aa",
    ),
    "normalizes nothing": (
        "add('normalizers', lambda: [Normalizer(functions=(), normalize=print)])",
        "functions of Normalizer must be a tuple of at least one function name",
    ),
    "normalizes with a number": (
        "add('normalizers', lambda: [Normalizer(functions=('f',), normalize=1)])",
        "normalize of Normalizer must be callable, not 1",
    ),
    "gives up in a hook": ("add('ops', lambda: throw(GivesUp()))", "raised GivesUp in torch_dag_ops"),
    "exits in a hook": ("add('ops', lambda: sys.exit('bye'))", "raised SystemExit in torch_dag_ops: bye"),
    "recurses in a hook": ("add('ops', lambda: torch_dag_ops())", "raised RecursionError in torch_dag_ops"),
    "fails unshowably in a hook": ("add('ops', lambda: throw(Unshowable))", "its message cannot be shown"),
    "returns a number": ("add('ops', lambda: 3)", "raised TypeError in torch_dag_ops: 'int' object is not iterable"),
    "returns a dict": ("add('ops', lambda: {'bad.layer': Layer})", r"returned a str .* from torch_dag_ops"),
    "returns the unprintable": ("add('ops', lambda: [Unprintable()])", "returned a Unprintable .*, not a OpSpec"),
    "takes an argument too many": ("add('ops', lambda registry, dag: [])", "does not fit a hook"),
    "is no hook at all": ("add('everything', lambda: [])", "which is no hook"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_plugin_is_left_out(good, op_source, install, check_the_rest, kind):
    source, match = LEFT_OUT[kind]
    good.install("aa", op_source("aa.op"))
    install(source)
    with pytest.warns(PluginWarning, match=ORIGIN) as caught:
        default_registry()
    (message,) = [str(warning.message) for warning in caught]
    assert re.search(match, message)
    assert message.count("\n") == 0
    assert message.endswith("To do without it, uninstall it or set TORCH_DAG_PLUGINS=aa,good")
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
def test_an_entry_point_that_is_no_plugin(install, check_the_rest, kind):
    attribute, source, match = ENTRY_POINTS[kind]
    install(source, attribute=attribute)
    if match is not None:
        with pytest.warns(PluginWarning, match=ORIGIN + match):
            default_registry()
    check_the_rest()


RESERVED = {"core": "sample-core", "user": "sample-user"}


@pytest.mark.parametrize("name", RESERVED)
def test_a_plugin_that_takes_a_reserved_name_is_left_out(good, op_source, check_the_rest, name):
    good.install(name, op_source(f"{name}.op"))
    key = f"{name}@sample-{name}"
    match = rf"plugin '{key}' \(sample-{name} 1\.0\) is called '{name}', a name that torch-dag keeps for itself"
    with pytest.warns(PluginWarning, match=match):
        default_registry()
    assert default_registry().find(f"{name}.op") is None
    assert [info.name for info in list_plugins() if info.error is not None] == [key]
    assert list_plugins()[0].distribution == "torch-dag-core"
    check_the_rest()


def test_a_distribution_called_core_is_a_plugin_like_any_other(good, op_source, check_the_rest):
    good.install("bad", op_source("bad.layer"), distribution="core")
    assert default_registry().get("bad.layer").owner == "core"
    assert [info.error for info in list_plugins()] == [None, None, None]
    check_the_rest()


def test_an_interrupt_on_import_passes_and_the_next_use_loads_again(install, check_the_rest, monkeypatch):
    install("import os\nif 'INTERRUPTED' in os.environ: raise KeyboardInterrupt")
    monkeypatch.setenv("INTERRUPTED", "1")
    with pytest.raises(KeyboardInterrupt):
        default_registry()
    monkeypatch.delenv("INTERRUPTED")
    default_registry()
    assert [info.error for info in list_plugins()] == [None, None, None]
    check_the_rest()


def test_an_interrupt_in_a_hook_passes_and_the_next_use_asks_again(install, check_the_rest, monkeypatch):
    install("import os\nadd('ops', lambda: throw(KeyboardInterrupt) if 'INTERRUPTED' in os.environ else [])")
    monkeypatch.setenv("INTERRUPTED", "1")
    with pytest.raises(KeyboardInterrupt):
        default_registry()
    monkeypatch.delenv("INTERRUPTED")
    check_the_rest()
