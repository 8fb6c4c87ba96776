"""timm's vision transformer for images of any aspect: images convert, patches with coordinates of their own do not."""

from __future__ import annotations

import pytest
import torch

from torch_dag_core.errors import TraceError

NAME = "naflexvit_base_patch16_gap"
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5, "patch_size": 8}


@pytest.mark.parametrize(
    "options",
    [{}, {"pos_embed": "factorized"}, {"pos_embed": "none", "rope_type": "axial"}, {"proj_drop_rate": 0.2}],
    ids=str,
)
def test_images_convert(options, make, convert, assert_equal):
    model = make(NAME, **SMALL, **options)
    dag = convert(model, torch.randn(2, 3, 32, 40))
    for batch in (1, 3):
        assert_equal(model, dag, torch.randn(batch, 3, 32, 40))
        assert_equal(model, dag, torch.randn(batch, 3, 32, 40), training=True)


def test_patches_with_coordinates_are_refused(make, convert):
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij")
    patches = {
        "patches": torch.randn(2, 12, 192),
        "patch_coord": torch.stack([rows.flatten(), columns.flatten()], -1).expand(2, -1, -1),
        "patch_valid": torch.ones(2, 12, dtype=torch.bool),
    }
    with pytest.raises(TraceError, match="its path depends on the data, in module 'embeds'"):
        convert(make(NAME, **SMALL), (patches,))
