"""The plugin as its author tests it."""

from __future__ import annotations

import pytest
import torch
from acme_torch_dag import OutlierClip, snake


@pytest.mark.torch_dag_plugin("acme")
def test_contract(torch_dag_contract):
    torch_dag_contract()


def test_clipping_depends_on_the_data():
    clip = OutlierClip(2, limit=1.0)
    assert torch.equal(clip(torch.full((1, 2), 0.5)), 0.5 * clip.scale[None])
    assert torch.equal(clip(torch.full((1, 2), 5.0)), clip.scale[None])


def test_snake_is_the_identity_at_zeros_of_its_sine():
    assert snake(torch.zeros(3)).tolist() == [0, 0, 0]
