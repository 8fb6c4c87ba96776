"""timm models with random weights, none of them at rest, and how outputs are compared."""

from __future__ import annotations

import copy
import sys

import pytest
import timm
import torch

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.plugins.discovery import installed
from torch_dag_core.plugins.loading import reload_plugins
from torch_dag_core.testing import awaken


@pytest.fixture(scope="session", autouse=True)
def _findable_plugin(tmp_path_factory):
    """Let the plugin be found where it is not installed, but run from its source folder."""
    if any(candidate.name == "timm" for candidate in installed()):
        yield
        return
    folder = tmp_path_factory.mktemp("site")
    info = folder / "torch_dag_timm-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-dag-timm\nVersion: 0.0\n")
    (info / "entry_points.txt").write_text("[torch_dag]\ntimm = torch_dag_timm.plugin\n")
    sys.path.append(str(folder))
    reload_plugins()
    yield
    sys.path.remove(str(folder))
    reload_plugins()


@pytest.fixture
def make():
    """Return a function that builds a timm model, awake and in evaluation mode."""

    def build(name, **options):
        torch.manual_seed(0)
        return awaken(timm.create_model(name, **options)).eval()

    return build


@pytest.fixture
def convert():
    """Return the conversion."""
    return build_from_unstructured_module


@pytest.fixture
def wrapped():
    """Return a function that puts one module, awake, into a model and converts that with an example."""

    def build(module, *inputs):
        torch.manual_seed(0)
        model = awaken(torch.nn.Sequential(torch.nn.Identity(), module)).eval()
        return model, build_from_unstructured_module(model, inputs)

    return build


@pytest.fixture
def kinds():
    """Return a function that lists the classes of a graph's vertices."""
    return lambda dag: [type(vertex.module).__name__ for vertex in dag.inner_vertices]


def run(model, inputs):
    """Run without gradients and always with the same draws."""
    torch.manual_seed(1)
    with torch.no_grad():
        return model(*inputs)


def leaves(output):
    """Return the tensors and constants that a model returned, one or a structure."""
    if isinstance(output, (tuple, list)):
        return [leaf for item in output for leaf in leaves(item)]
    return [output]


def assert_same_leaf(found, expected, tolerance):
    """Assert equal constants, or tensors that differ by at most a part of the largest element and say something."""
    if not isinstance(expected, torch.Tensor):
        assert found == expected
        return
    assert found.shape == expected.shape
    assert torch.isfinite(expected).all()
    assert expected.double().std() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture
def assert_equal():
    """Return a function that asserts equal outputs that say something, and equal state; training acts on copies.

    ``tolerance`` is relative to the largest output.
    """

    def check(model, dag, *inputs, training=False, tolerance=0.0):
        twins = [copy.deepcopy(twin).train() if training else twin.eval() for twin in (model, dag)]
        expected, found = (run(twin, inputs) for twin in twins)
        assert type(found) is type(expected)
        for ours, theirs in zip(leaves(found), leaves(expected), strict=True):
            assert_same_leaf(ours, theirs, tolerance)
        source, own = (twin.state_dict() for twin in twins)
        if training:
            for key, value in source.items():
                torch.testing.assert_close(own[key], value, rtol=tolerance, atol=tolerance)

    return check
