"""Rows and matrices of contractions against the modules themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_pruning.statistics.contractions import CONTRACTIONS, Places

CASES = {
    "linear": ("core.linear", nn.Linear(5, 7), (3, 4, 6, 5)),
    "linear on vectors": ("core.linear", nn.Linear(5, 7, bias=False), (3, 5)),
    "grouped, dilated, strided": ("core.conv2d", nn.Conv2d(6, 8, 3, 2, 1, dilation=2, groups=2), (3, 6, 11, 9)),
    "reflected": ("core.conv2d", nn.Conv2d(6, 8, (3, 2), padding="same", padding_mode="reflect"), (3, 6, 11, 9)),
    "depthwise": ("core.conv2d", nn.Conv2d(6, 12, 7, padding=3, groups=6), (3, 6, 11, 9)),
    "one dimension": ("core.conv1d", nn.Conv1d(6, 8, 5, padding=2), (3, 6, 11)),
    "three": ("core.conv3d", nn.Conv3d(4, 8, 3, padding=(1, 0, 2), stride=(1, 2, 1)), (2, 4, 5, 6, 7)),
    "transposed": ("core.conv_transpose1d", nn.ConvTranspose1d(6, 8, 4, stride=3), (3, 6, 5)),
    "transposed, grouped, dilated": (
        "core.conv_transpose2d", nn.ConvTranspose2d(6, 8, 3, 2, 1, 1, groups=2, dilation=2), (3, 6, 5, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("most", [4, 1000])
@pytest.mark.parametrize(("key", "module", "shape"), CASES.values(), ids=CASES)
@torch.no_grad()
def test_rows_times_the_matrix_are_the_results(key, module, shape, most):
    generator = torch.Generator().manual_seed(0)
    module, x = module.double(), torch.randn(shape, generator=generator, dtype=torch.float64)
    result, contraction = module(x), CONTRACTIONS[key]
    places = Places.drawn(result, contraction.channel, most, generator)
    matrix = contraction.matrix(module, module.weight)
    given = contraction.operand(module, x, places) @ matrix.mT
    if module.bias is not None:
        given += module.bias.view(matrix.shape[0], 1, -1)
    torch.testing.assert_close(given, contraction.result(module, result, places), rtol=0, atol=1e-13)
    assert places.index.shape[1] <= most
    assert torch.equal(contraction.weight(module, matrix), module.weight)


def test_places_of_a_sample_are_different():
    places = Places.drawn(torch.zeros(5, 3, 10, 10), 1, 40, torch.Generator().manual_seed(0))
    assert all(row.unique().numel() == 40 for row in places.index)
