"""A graph trains as its source does: equal seeds, equal steps, equal parameters and statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

MODELS = {
    "resnet18": {"drop_rate": 0.2, "drop_path_rate": 0.2},
    "efficientnet_b0": {"drop_rate": 0.2, "drop_path_rate": 0.2},
    "vit_tiny_patch16_224": {
        "img_size": 32, "drop_rate": 0.1, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2,
    },
    "swin_tiny_patch4_window7_224": {
        "img_size": 64, "drop_rate": 0.1, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2,
    },
}  # fmt: skip
BATCH, STEPS, RATE = 4, 3, 0.01


def train(model, size):
    """Take a few steps on fixed data with fixed draws; return the losses."""
    torch.manual_seed(3)
    images = [torch.randn(BATCH, 3, size, size) for _ in range(STEPS)]
    targets = torch.arange(BATCH)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=RATE, momentum=0.9)
    losses = []
    for image in images:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(image), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", MODELS)
def test_three_steps_are_the_same_three_steps(name, make, convert):
    model = make(name, **MODELS[name])
    size = MODELS[name].get("img_size", 64)
    dag = convert(model)
    start = copy.deepcopy(model.state_dict())
    losses = train(model, size), train(dag, size)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    trained, found = model.state_dict(), dag.state_dict()
    assert trained.keys() == found.keys()
    for key, value in trained.items():
        scale = value.abs().max().clamp(min=1e-6) if value.is_floating_point() else 1
        assert ((found[key] - value).abs().max() / scale) <= 1e-5, key
    assert sum(not torch.equal(start[key], value) for key, value in trained.items()) > len(trained) / 2


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_dropouts_draw_anew_at_every_call(name, make, convert):
    options = MODELS[name]
    dag = convert(make(name, **options)).train()
    image = torch.randn(BATCH, 3, options.get("img_size", 64), options.get("img_size", 64))
    with torch.no_grad():
        assert not torch.equal(dag(image), dag(image))
