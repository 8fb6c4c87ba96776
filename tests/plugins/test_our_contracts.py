"""Our own plugins, built and installed, under the contract that their kit asks of everybody's."""

from __future__ import annotations

import re

import pytest

from torch_dag_timm import plugin as timm_plugin

# For each plugin: the wheels that it needs, and what its records are called.
PLUGINS = {
    "timm": (("timm", "pruning"), [spec.name for spec in timm_plugin.torch_dag_atomic_modules()]),
    "pruning": (("pruning",), ["pruning.mask"]),
    "block_pruning": (("torch_dag_block_pruning",), []),
    "llrc": (("torch_dag_llrc",), []),
    "export": (("torch_dag_export",), []),
    "show": (("torch_dag_show",), []),
    "hub": (("torch_dag_hub",), []),
    "transformers": (("torch_dag_transformers",), []),
}
# What there is to check of a module that is converted, and of an op.
_CONVERTED = {"traces", "clones", "deepcopies", "saves", "compiles", "costs", "prunes"}
CHECKS = {"timm": _CONVERTED, "pruning": {"runs", *_CONVERTED}}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_our_plugins_keep_the_contract(plugin, environments, run_contract):
    wheels, records = PLUGINS[plugin]
    results = run_contract(environments("core", *wheels), plugin)
    assert "[takes part] PASSED" in results
    found = set(re.findall(r"\[(\S+)-\d+-(\w+)\] PASSED", results))
    assert found == {(record, check) for record in records for check in CHECKS[plugin]}
