"""Moves along an axis, padding, shuffles and windows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def test_moves_along_an_axis_leave_the_others_alone(check, fn):
    def forward(m, x):
        x = m.a(x)
        x = x.roll(2, 1).flip(1).cumsum(1)
        x = x + x.sort(1).values + x.topk(7, 1).values
        return m.b(x.roll((1, 2), (2, 1)) if m.over_channels else x)

    for over_channels in (False, True):
        net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3))
        net.over_channels = over_channels
        ops = ["roll", "flip", "cumsum", "sort", "topk"]
        check(net, torch.randn(2, 7, 5), ops=ops, orbits=[7] if over_channels else [8], seeds=[1])


@pytest.mark.parametrize(
    ("shifts", "orbits"), [(3, [5, 3]), (-3, [3, 5]), (11, [5, 3]), (8, [8]), (1, [7]), (-1, [7]), ((3, 2), [3, 2, 3])]
)
def test_a_roll_over_channels_swaps_two_pieces(check, fn, shifts, orbits):
    def forward(m, x):
        return m.b(F.relu(m.a(x).roll(shifts, -1 if isinstance(shifts, int) else (-1, -1))))

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    analysis = check(net, torch.randn(2, 5), ops=["roll"])
    assert sorted(orbit.n for orbit in analysis.orbits) == sorted(orbits)


def test_rolls_tie_what_they_move_to_what_it_meets(check, fn):
    net = fn(lambda m, x: m.b(F.relu(m.a(x).roll(4, 1) + m.a(x))), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["roll"], orbits=[4])


def test_roll_without_dimensions_freezes_all(check, fn):
    net = fn(lambda m, x: m.b(m.a(x).roll(1)), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), orbits=[], seeds=[1])


def test_windows_along_tokens(check, fn):
    net = fn(lambda m, x: m.b(m.a(x).unfold(1, 3, 2).mean(-1)), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["unfold_dim"], orbits=[8])


def test_triangles_freeze_the_last_two(check, fn):
    net = fn(lambda m, x: m.b(m.a(x).transpose(1, 2).tril(1).transpose(1, 2)), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["triangle"], orbits=[], seeds=[1])


def test_padded_channels(check, fn):
    def forward(m, x):
        x = m.a(x)
        return m.c(F.relu(m.b(F.relu(x)) + F.pad(x, (0, 0, 0, 0, 2, 2))))

    net = fn(forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 12, 1), c=nn.Conv2d(12, 3, 1))
    check(net, torch.randn(2, 3, 6, 6), ops=["pad"], orbits=[2, 8, 2])


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padded_space(check, fn, mode):
    net = fn(lambda m, x: m.b(F.pad(m.a(x), (1, 2, 0, 1), mode=mode)), a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 3, 3))
    check(net, torch.randn(2, 3, 6, 6), ops=["pad"], orbits=[8], seeds=[1])


_PADS = [
    nn.ZeroPad2d(1), nn.ConstantPad2d((1, 0, 2, 0), 0.5), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1),
    nn.CircularPad2d(1), nn.ZeroPad1d(1), nn.ConstantPad1d(1, 0.5), nn.ReflectionPad1d(1), nn.ReplicationPad1d(1),
    nn.CircularPad1d(1), nn.ZeroPad3d(1), nn.ConstantPad3d(1, 0.5), nn.ReflectionPad3d(1), nn.ReplicationPad3d(1),
    nn.CircularPad3d(1),
]  # fmt: skip


@pytest.mark.parametrize("module", _PADS, ids=lambda module: type(module).__name__)
def test_padding_modules(check, fn, module):
    rank = int(type(module).__name__[-2])
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    net = fn(lambda m, x: m.b(m.pad(m.a(x))), a=conv(3, 8, 1), pad=module, b=conv(8, 3, 1))
    check(net, torch.randn(2, 3, *[4] * rank), orbits=[8], seeds=[1])


def test_shuffles(check, fn):
    def forward(m, x):
        x = m.up(m.shuffle(m.a(x)))
        return m.c(m.down(m.b(x)))

    net = fn(
        forward, a=nn.Conv2d(3, 24, 1), shuffle=nn.ChannelShuffle(3), up=nn.PixelShuffle(2), b=nn.Conv2d(6, 10, 1),
        down=nn.PixelUnshuffle(2), c=nn.Conv2d(40, 3, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 3, 4, 4), ops=["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"])


def test_shuffle_between_grouped_convolutions(check, fn):
    net = fn(
        lambda m, x: m.c(m.b(m.shuffle(m.a(x)))),
        a=nn.Conv2d(4, 12, 1, groups=2), shuffle=nn.ChannelShuffle(2), b=nn.Conv2d(12, 12, 1, groups=2),
        c=nn.Conv2d(12, 3, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 4, 4, 4), ops=["channel_shuffle"])


def test_columns_of_windows_and_back(check, fn):
    def forward(m, x):
        columns = F.relu(m.unfold(m.a(x)))
        return m.c(m.fold(columns)) + m.d(columns.transpose(1, 2)).mean(1)[:, :, None, None]

    net = fn(
        forward, a=nn.Conv2d(3, 6, 1), unfold=nn.Unfold(2, stride=2), fold=nn.Fold((4, 4), 2, stride=2),
        c=nn.Conv2d(6, 3, 1), d=nn.Linear(24, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 3, 4, 4), ops=["unfold", "fold"], orbits=[6])
