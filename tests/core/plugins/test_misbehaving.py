"""A plugin that goes wrong is named, and nothing else suffers."""

from __future__ import annotations

import warnings

import pytest

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, algorithms
from torch_dag_core.errors import DuplicateOpError, PluginError, PluginLoadError, PluginWarning
from torch_dag_core.plugins.loading import (
    add_hookspecs,
    contributions,
    default_registry,
    first_answer,
    list_plugins,
    require,
)

LOAD_FAILURES = {
    "import": (
        "import a_module_that_is_not_there",
        "cannot be imported: ModuleNotFoundError.*a_module_that_is_not_there",
    ),
    "syntax": ("def broken(:", "cannot be imported: SyntaxError"),
    "newer": ("TORCH_DAG_HOOK_API = 2", "is written for version 2 of the hooks, this torch-dag-core has version 1"),
    "older": ("TORCH_DAG_HOOK_API = 0", "is written for version 0 of the hooks, this torch-dag-core has version 1"),
    "misspelt": (
        "@hookimpl\ndef torch_dag_opps(): return []",
        "implements 'torch_dag_opps', which is no hook; did you mean 'torch_dag_ops'",
    ),
    "arguments": ("@hookimpl\ndef torch_dag_ops(registry): return []", "does not fit a hook: .*registry"),
    "early": (
        "from torch_dag_core.plugins.loading import default_registry\ndefault_registry()",
        "asks for the plugins while they are loaded; let it ask inside a function",
    ),
}
HOOK_FAILURES = {
    "early": (
        "from torch_dag_core.plugins.loading import default_registry\n    return default_registry().ops()",
        "raised PluginError in torch_dag_ops: a plugin asks for the plugins while they are loaded",
    ),
    "raises": ("raise RuntimeError('no luck')", "raised RuntimeError in torch_dag_ops: no luck"),
    "yields": (
        "yield OpSpec(key='sample.a', target=nn.Module)\n    1 / 0",
        "raised ZeroDivisionError in torch_dag_ops",
    ),
    "string": ("return 'sample.blur'", r"returned a str \('s'\) from torch_dag_ops, not a OpSpec"),
    "other": ("return [nn.Linear]", "returned a type .* from torch_dag_ops, not a OpSpec"),
    "bare": ("return OpSpec(key='sample.a', target=nn.Module)", "raised TypeError in torch_dag_ops.*not iterable"),
}


@pytest.fixture
def good(site, op_source):
    site.install("good", op_source("good.op"))
    return site


def check_left_out(name, match):
    """One warning, listed with its error, raised when required, and the good plugin works."""
    with pytest.warns(PluginWarning, match=match) as caught:
        registry = default_registry()
    assert len(caught) == 1
    assert registry.find("good.op") is not None
    assert registry.find("sample.blur") is None
    assert registry.find("sample.a") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_registry() is registry
    (error,) = [info.error for info in list_plugins() if info.error is not None]
    assert error.plugin == name
    assert f"plugin {name!r} (sample-{name} 1.0)" in str(error)
    assert "set TORCH_DAG_PLUGINS=good" in str(error)
    with pytest.raises(PluginLoadError, match=match):
        require(f"sample-{name}")


@pytest.mark.parametrize("kind", LOAD_FAILURES)
def test_a_plugin_that_cannot_be_loaded_is_left_out(good, kind):
    source, match = LOAD_FAILURES[kind]
    good.install("bad", source)
    check_left_out("bad", match)


@pytest.mark.parametrize("kind", HOOK_FAILURES)
def test_a_plugin_that_fails_in_a_hook_is_left_out(good, kind):
    body, match = HOOK_FAILURES[kind]
    good.install("bad", f"@hookimpl\ndef torch_dag_ops():\n    {body}\n")
    check_left_out("bad", match)


def test_a_plugin_that_fails_in_a_later_hook_adds_no_op_either(good, op_source):
    source = op_source("bad.a").replace("\n    ", "\n")
    good.install("bad", source + "\n@hookimpl\ndef torch_dag_normalizers():\n    1 / 0\n")
    check_left_out("bad", "raised ZeroDivisionError in torch_dag_normalizers")


def test_a_warning_turned_into_an_error_leaves_the_state_whole(good):
    good.install("bad", "1 / 0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PluginWarning, match="ZeroDivisionError"):
            default_registry()
        assert default_registry().find("good.op") is not None


def test_the_cause_of_a_failed_import_is_kept(good):
    good.install("bad", "1 / 0")
    with pytest.raises(PluginLoadError) as caught:
        require("bad")
    chain = [caught.value, caught.value.__cause__, caught.value.__cause__.__cause__]
    assert [type(error) for error in chain] == [PluginLoadError, PluginLoadError, ZeroDivisionError]


def test_a_function_that_another_plugin_has_leaves_the_second_out_whatever_was_installed_first(site, op_source):
    site.install("two", op_source("two.blur", ("blur",)))
    site.install("one", op_source("one.blur", ("blur",)))
    with pytest.warns(PluginWarning, match=r"function 'blur'.*'sample-one'.*'sample-two'") as caught:
        registry = default_registry()
    assert registry.for_function("blur").owner == "sample-one"
    assert registry.find("two.blur") is None
    assert str(caught[0].message).startswith("plugin 'two' (sample-two 1.0) is left out: ")
    assert str(caught[0].message).endswith("To do without it, uninstall it or set TORCH_DAG_PLUGINS=one")
    (error,) = [info.error for info in list_plugins() if info.error is not None]
    assert isinstance(error.__cause__, DuplicateOpError)


def test_an_algorithm_that_another_plugin_has_is_left_out(site):
    source = """
    from dataclasses import dataclass
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec

    @dataclass(frozen=True)
    class Settings:
        strength: float = 0.5

    @hookimpl
    def torch_dag_algorithms():
        return [AlgorithmSpec(name="squeeze", summary="Makes it small.", config=Settings, create=Settings)]
    """
    site.install("one", source)
    site.install("two", source)
    match = r"plugin 'two' .* adds the AlgorithmSpec 'squeeze', which plugin 'one' \(sample-one 1.0\) has"
    with pytest.warns(PluginWarning, match=match):
        assert algorithms()["squeeze"].owner == "sample-one"


def test_one_name_for_two_distributions_is_an_error_that_names_both(good):
    good.install("twin", "", distribution="sample-cain", module="sample_module_cain")
    good.install("twin", "", distribution="sample-abel", module="sample_module_abel")
    with pytest.warns(PluginWarning, match=r"sample-(cain and sample-abel|abel and sample-cain).*one name for two"):
        assert default_registry().find("good.op") is not None


def test_one_module_under_two_names_is_refused(good):
    good.install("twin", None, module="sample_module_good")
    with pytest.warns(PluginWarning, match="'twin'.*is the same module as another plugin"):
        default_registry()


def test_a_hook_of_an_absent_plugin_is_fine_when_optional(good, recwarn):
    good.install("guest", "@hookimpl(optionalhook=True)\ndef torch_dag_axis_rules(): return []")
    assert default_registry().find("good.op") is not None
    assert [str(warning.message) for warning in recwarn if warning.category is PluginWarning] == []


class RuleSpecs:
    """Hook specs as a plugin would add them."""

    from torch_dag_core.plugins.hookspecs import hookspec

    @staticmethod
    @hookspec
    def torch_dag_sample_rules(model):
        """Add rules."""


def test_an_optional_hook_comes_alive_when_its_spec_is_added(good):
    good.install("guest", "@hookimpl(optionalhook=True)\ndef torch_dag_sample_numbers(): return [1, 2]")
    default_registry()

    class Specs:
        torch_dag_sample_numbers = staticmethod(RuleSpecs.hookspec(lambda: None))

    add_hookspecs(Specs)
    add_hookspecs(Specs)
    assert contributions("torch_dag_sample_numbers", int) == [("sample-guest", 1), ("sample-guest", 2)]


def test_an_optional_hook_with_wrong_arguments_drops_its_plugin_only(good):
    good.install("guest", "@hookimpl(optionalhook=True)\ndef torch_dag_sample_rules(graph): return [1]")
    good.install("host", "@hookimpl(optionalhook=True)\ndef torch_dag_sample_rules(): return [2]")
    with pytest.warns(PluginWarning, match=r"plugin 'guest' \(sample-guest 1.0\) does not fit a hook"):
        add_hookspecs(RuleSpecs)
    assert [info.name for info in list_plugins() if info.error is not None] == ["guest"]
    assert default_registry().find("good.op") is not None


def test_a_failing_answer_does_not_hide_another(good):
    good.install("bad", "@hookimpl\ndef torch_dag_example_inputs(model): 1 / 0")
    good.install("fine", "@hookimpl\ndef torch_dag_example_inputs(model): return (model,)")
    with pytest.warns(PluginWarning, match="plugin 'bad'.*ZeroDivisionError in torch_dag_example_inputs"):
        assert first_answer("torch_dag_example_inputs", tuple, model=3) == (3,)


def test_a_failing_answer_is_raised_when_there_is_no_other(good):
    good.install("bad", "@hookimpl\ndef torch_dag_example_inputs(model): 1 / 0")
    with pytest.raises(PluginError, match=r"plugin 'bad' \(sample-bad 1.0\) raised ZeroDivisionError"):
        first_answer("torch_dag_example_inputs", tuple, model=3)


def test_an_error_meant_for_the_caller_passes_through(good):
    source = """
    from torch_dag_core.errors import ModelReferenceError

    @hookimpl
    def torch_dag_model_source(reference):
        raise ModelReferenceError("sample has no such model")
    """
    good.install("strict", source)
    with pytest.raises(ValueError, match=r"^sample has no such model$"):
        first_answer("torch_dag_model_source", object, reference="sample:x", options={})


def test_a_changeable_config_is_refused():
    with pytest.raises(ValueError, match="config of algorithm 'squeeze' must be a frozen dataclass"):
        AlgorithmSpec(name="squeeze", summary="", config=dict, create=dict)
