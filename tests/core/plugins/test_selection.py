"""Which plugins take part, and in which order."""

from __future__ import annotations

import itertools
import sys

import pytest

from torch_dag_core.errors import PluginLoadError
from torch_dag_core.plugins.loading import default_registry, list_plugins, plugin_manager, require
from torch_dag_core.testing import contract


@pytest.fixture
def three(site, op_source):
    for name in ("blue", "green", "red"):
        site.install(name, op_source(f"{name}.op"))
    return site


def own_keys():
    return {spec.key for spec in default_registry().ops() if spec.owner.startswith("sample-")}


def test_all_plugins_take_part_when_the_variable_is_unset(three):
    assert own_keys() == {"blue.op", "green.op", "red.op"}
    assert [info.name for info in list_plugins()] == ["core", "blue", "green", "red"]


def test_no_plugin_takes_part_when_the_variable_is_empty(three, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "")
    assert own_keys() == set()
    assert [info.disabled for info in list_plugins()] == [False, True, True, True]
    assert not any(module.startswith("sample_module_") for module in sys.modules)


def test_only_the_listed_plugins_take_part(three, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "red, blue")
    assert own_keys() == {"blue.op", "red.op"}
    assert "sample_module_green" not in sys.modules


def test_a_listed_plugin_that_is_not_installed_is_an_error_that_names_the_installed(three, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "red,purple")
    with pytest.raises(
        PluginLoadError, match=r"names the plugin 'purple', .*installed are: blue, green, red"
    ) as caught:
        default_registry()
    assert caught.value.plugin == "purple"


def test_a_wrong_list_leaves_nothing_half_loaded(three, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "red,purple")
    for _ in range(2):
        with pytest.raises(PluginLoadError, match="purple"):
            default_registry()
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "red")
    assert own_keys() == {"red.op"}


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "c"])))
def test_the_order_of_installation_changes_nothing(site, op_source, order):
    for name in order:
        site.install(name, op_source(f"{name}.op"))
    assert [name for name, _ in plugin_manager().list_name_plugin()] == ["core", "a", "b", "c"]
    assert [spec.key for spec in default_registry().ops() if spec.owner.startswith("sample-")] == [
        "a.op",
        "b.op",
        "c.op",
    ]


def test_the_registry_is_built_once(three):
    assert default_registry() is default_registry()


def test_every_op_knows_the_distribution_it_came_from(three):
    assert default_registry().get("green.op").owner == "sample-green"


def test_without_any_plugin_the_core_is_all_there_is(site):
    (core,) = list_plugins()
    assert (core.name, core.distribution) == ("core", "torch-dag-core")
    assert "torch_dag_ops" in core.hooks
    assert {spec.owner for spec in default_registry().ops()} <= {"torch-dag-core"}


def test_require_accepts_the_plugin_and_its_distribution(three):
    require("red")
    require("sample-red")
    assert own_keys() == {"blue.op", "green.op", "red.op"}


def test_require_says_what_to_install(site):
    with pytest.raises(PluginLoadError, match="'torch-dag-onnx' is installed; try: pip install torch-dag-onnx"):
        require("torch-dag-onnx")


def test_require_says_that_a_plugin_is_switched_off(three, monkeypatch):
    monkeypatch.setenv("TORCH_DAG_PLUGINS", "red")
    with pytest.raises(
        PluginLoadError, match=r"plugin 'blue' \(sample-blue 1.0\) is switched off by TORCH_DAG_PLUGINS"
    ):
        require("sample-blue")


def test_a_plugin_that_is_not_installed_is_one_failing_test(site):
    (test,) = contract("nobody")
    with pytest.raises(PluginLoadError, match="no plugin or distribution named 'nobody' is installed"):
        test()
