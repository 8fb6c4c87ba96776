"""Packages import their public names when the first of them is used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions, version

import pytest

import torch_dag_core as td

SCRIPT = """
import sys
import torch_dag_core as td
assert "torch" not in sys.modules
assert td.__version__
assert "torch" not in sys.modules
assert td.errors.TorchDagError is td.TorchDagError
names = {}
exec("from torch_dag_core import *", names)
assert set(td.__all__) <= set(names)
from torch_dag_core.plugins.loading import default_registry
assert default_registry().for_class(sys.modules["torch"].nn.Linear).key == "core.linear"
"""
OURS = sorted({each.name for each in distributions() if each.name.startswith("torch-dag-")})


def test_names_are_imported_at_first_use():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_registry_is_complete_without_public_names():
    script = (
        "from torch_dag_core.plugins.loading import default_registry; assert len(list(default_registry().ops())) > 50"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_missing_names_are_missing():
    with pytest.raises(AttributeError, match="module 'torch_dag_core' has no attribute 'find_alogrithm'"):
        _ = td.find_alogrithm
    with pytest.raises(AttributeError, match="has no attribute '_private'"):
        _ = td._private


def test_all_names_are_listed():
    assert {*td.__all__, "__version__"} <= set(dir(td))


@pytest.mark.parametrize("distribution", OURS)
def test_every_package_has_the_version_of_its_distribution(distribution):
    package = distribution.replace("-", "_")
    script = f"import {package}; print({package}.__version__)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert said == version(distribution)
