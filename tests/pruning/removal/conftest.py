"""Small networks, each with one trap, and what makes any network show its errors."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

FILES = sorted(Path(__file__).with_name("networks").glob("*.py"))
# A network says the shape of its example input (after the batch), and how many tokens there are if it wants indices.
NETWORKS = {
    name: value
    for file in FILES
    for name, value in runpy.run_path(str(file)).items()
    if isinstance(value, type) and "shape" in vars(value)
}


def awake(model, seed=0):
    """Give a model random scales, shifts and statistics: zeros and ones hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or "cos" in name or "sin" in name or name == "table":
                continue
            noise = torch.rand(tensor.shape, generator=generator)
            if "var" in name or (tensor.dim() <= 1 and "weight" in name):
                tensor.copy_(0.5 + noise)
            elif tensor.dim() <= 1 or name.split(".")[-1] in ("token", "position", "gain", "cls_token", "pos_embed"):
                tensor.copy_(noise - 0.3)
    return model.eval()


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
    return awake(network()), example(network.shape, getattr(network, "tokens", 0))


@pytest.fixture
def wake():
    return awake
