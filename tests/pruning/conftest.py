"""Small networks, each with one trap."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from torch_dag_core.testing import awaken

FILES = sorted(Path(__file__).with_name("networks").glob("*.py"))
# A network says the shape of its example input (after the batch), and how many tokens there are if it wants indices.
NETWORKS = {
    name: value
    for file in FILES
    for name, value in runpy.run_path(str(file)).items()
    if isinstance(value, type) and "shape" in vars(value)
}


def example(shape, tokens, batch=2):
    if tokens:
        return torch.randint(tokens, (batch, *shape), generator=torch.Generator().manual_seed(1))
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def pytest_generate_tests(metafunc):
    chosen = [marker.args[0] for marker in metafunc.definition.iter_markers("parametrize")]
    if "network_name" in metafunc.fixturenames and "network_name" not in chosen:
        metafunc.parametrize("network_name", list(NETWORKS))


@pytest.fixture
def network_and_input(network_name):
    network = NETWORKS[network_name]
    torch.manual_seed(0)
    return awaken(network()).eval(), example(network.shape, getattr(network, "tokens", 0))
