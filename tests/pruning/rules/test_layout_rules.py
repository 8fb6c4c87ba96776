"""Reshapes, cuts, joins, padding, shuffles, indexing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def heads(x, count):
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def test_heads_and_back(check, fn):
    net = fn(lambda m, x: m.b(heads(m.a(x), 4).transpose(1, 2).flatten(2)), a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    check(net, torch.randn(2, 7, 5), ops=["reshape", "permute"], orbits=[4, 3])


def test_fused_projection(check, fn):
    def forward(m, x):
        q, k, v = m.qkv(x).reshape(len(x), 7, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        return m.b((torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v).transpose(1, 2).reshape(len(x), 7, 12))

    check(
        fn(forward, qkv=nn.Linear(5, 36), b=nn.Linear(12, 3)),
        torch.randn(2, 7, 5),
        ops=["unbind", "get_item"],
        orbits=[4, 3],
    )


def test_split_projection_frees_the_value(check, fn):
    def forward(m, x):
        q, k, v = m.qkv(x).split([6, 6, 10], -1)
        return m.b(torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v)

    check(fn(forward, qkv=nn.Linear(5, 22), b=nn.Linear(10, 3)), torch.randn(2, 7, 5), ops=["split"], orbits=[6, 10])


def test_chunks_of_other_sizes_after_pruning(check, fn):
    def forward(m, x):
        a, b = m.a(x).chunk(2, -1)
        return m.b(F.relu(a)) + m.c(b)

    net = fn(forward, a=nn.Linear(5, 16), b=nn.Linear(8, 3), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), orbits=[8, 8])


def test_cat(check, fn):
    def forward(m, x):
        a, b = m.a(x), m.b(x)
        return m.c(torch.cat([a, b, a], 1)) + m.d(torch.cat([b, a.detach()], 1))

    net = fn(forward, a=nn.Linear(5, 6), b=nn.Linear(5, 8), c=nn.Linear(20, 3), d=nn.Linear(14, 3))
    check(net, torch.randn(2, 5), ops=["cat"], orbits=[6, 8])


def test_cat_into_groups(check, fn):
    def forward(m, x):
        return m.c(m.norm(torch.cat([m.a(x), m.b(x)], 1)))

    net = fn(forward, a=nn.Conv2d(3, 32, 1), b=nn.Conv2d(3, 64, 1), norm=nn.GroupNorm(8, 96), c=nn.Conv2d(96, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["cat", "group_norm"])


def test_stack(check, fn):
    net = fn(
        lambda m, x: m.c(torch.stack([m.a(x), m.b(x)], 1)).sum(1),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 8),
        c=nn.Linear(8, 3),
    )
    check(net, torch.randn(2, 5), ops=["stack"], orbits=[8])


def test_shared_keys_and_values(check, fn):
    """Grouped queries: key heads go whole, and the same query of every group."""

    def forward(m, x):
        q, k, v = heads(m.q(x), 6), heads(m.k(x), 2), heads(m.v(x), 2)
        k, v = (t[:, :, None].expand(-1, -1, 3, -1, -1).flatten(1, 2) for t in (k, v))
        return m.o((torch.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v).transpose(1, 2).flatten(2))

    net = fn(forward, q=nn.Linear(5, 24), k=nn.Linear(5, 8), v=nn.Linear(5, 8), o=nn.Linear(24, 3))
    check(net, torch.randn(2, 7, 5), ops=["expand"], orbits=[3, 2, 4, 4])


def test_an_expanded_token_follows_the_batch(check, fn):
    net = fn(
        lambda m, x: m.b(torch.cat([m.token.expand(x.shape[0], -1, -1), m.a(x)], 1)),
        a=nn.Linear(5, 8), b=nn.Linear(8, 3), token=nn.Parameter(torch.randn(1, 1, 8)),
    )  # fmt: skip
    check(net, torch.randn(2, 7, 5), ops=["expand", "cat"], orbits=[8])


def test_expand_as(check, fn):
    net = fn(
        lambda m, x: m.c(m.b(x).mean(1, keepdim=True).expand_as(m.a(x)) * m.a(x)),
        a=nn.Linear(5, 8), b=nn.Linear(5, 4), c=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), orbits=[8, 4])


def test_repeats(check, fn):
    net = fn(
        lambda m, x: m.b(m.a(x).repeat(1, 2)) + m.c(m.a(x).repeat_interleave(2, 1)),
        a=nn.Linear(5, 8), b=nn.Linear(16, 3), c=nn.Linear(16, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), ops=["repeat", "repeat_interleave"], orbits=[8])


def test_moves_along_an_axis_freeze_it_only(check, fn):
    def forward(m, x):
        x = m.a(x)
        x = x.roll(2, 1).flip(1).cumsum(1)
        x = x + x.sort(1).values + x.topk(7, 1).values
        return m.b(x.roll((1, 2), (2, 1)) if m.over_channels else x)

    for over_channels in (False, True):
        net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3))
        net.over_channels = over_channels
        ops = ["roll", "flip", "cum_sum", "sort", "top_k"]
        check(net, torch.randn(2, 7, 5), ops=ops, orbits=[] if over_channels else [8], seeds=[1])


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


INDEXED = {
    "slice": (lambda x: x[..., 2:6], 4, [2, 4, 2]),
    "negative slice": (lambda x: x[..., -5:-1], 4, [3, 4]),
    "open slice": (lambda x: x[..., 3:], 5, [3, 5]),
    "stride": (lambda x: x[..., ::2], 4, [4]),
    "odd stride": (lambda x: x[..., 1::2], 4, [4]),
    "uneven stride": (lambda x: x[..., ::3], 3, []),
    "new axis": (lambda x: x[:, None][:, 0], 8, [8]),
    "token": (lambda x: x[:, 0], 8, [8]),
    "last token": (lambda x: x[:, -1], 8, [8]),
    "channel": (lambda x: x[..., 3:5].sum(-1, keepdim=True).expand(-1, -1, 4), 4, [3, 2, 3]),
    "positions": (lambda x: x[:, torch.tensor([0, 2, 2])], 8, [8]),
    "apart": (lambda x: x[:, torch.tensor([0, 2]), :, None][:, :, :, 0], 8, [8]),
    "channels by position": (lambda x: x[..., torch.tensor([1, 3, 5])], 3, []),
    "index_select": (lambda x: x.index_select(1, torch.tensor([1, 1, 0])), 8, [8]),
    "gather": (lambda x: x.gather(1, (x[:, :3] > 0).long()), 8, [8]),
}


@pytest.mark.parametrize("name", INDEXED)
def test_indexing(check, fn, name):
    pick, width, orbits = INDEXED[name]
    net = fn(lambda m, x: m.b(F.relu(pick(m.a(x)))), a=nn.Linear(5, 8), b=nn.Linear(width, 3))
    check(net, torch.randn(2, 7, 5), orbits=orbits)


def half(x):
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


def pairs(x):
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)


@pytest.mark.parametrize("rotate", [half, pairs])
def test_both_parts_of_a_rotated_pair_go_together(check, fn, rotate):
    def forward(m, x):
        q = m.a(x)
        return m.b(q * m.cos + rotate(q) * m.sin)

    tables = {"cos": nn.Parameter(torch.randn(7, 8)), "sin": nn.Parameter(torch.randn(7, 8))}
    check(fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3), **tables), torch.randn(2, 7, 5), orbits=[4])


def test_writing_into_a_copy(check, fn):
    def forward(m, x):
        x = m.a(x).clone()
        x[:, 1:3] = m.b(x[:, 0:1])
        x[:, 4] = 0.5
        return m.c(x)

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["set_index"], orbits=[8])


def test_writing_channels(check, fn):
    def forward(m, x):
        y = m.a(x).clone()
        y[..., 2:6] = m.b(x)
        return m.c(y)

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(5, 4), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["set_index"])


def test_flatten_modules(check, fn):
    net = fn(
        lambda m, x: m.b(m.flat(m.a(x))) + m.c(m.unflat(m.flat(m.a(x)))).mean((2, 3)),
        a=nn.Conv2d(3, 8, 1), flat=nn.Flatten(), unflat=nn.Unflatten(1, (8, 4, 4)), b=nn.Linear(128, 3),
        c=nn.Conv2d(8, 3, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 3, 4, 4), orbits=[8])


def test_windows_merged_into_the_batch(check, fn):
    def forward(m, x):
        b, h, w, _ = x.shape
        x = m.a(x)
        x = x.view(b, h // 2, 2, w // 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
        x = m.norm(m.b(x) + m.bias)
        x = x.view(b, h // 2, w // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, 8)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return m.c(x)

    net = fn(
        forward, a=nn.Linear(3, 8), b=nn.Linear(8, 8), bias=nn.Parameter(torch.randn(4, 8)), norm=nn.LayerNorm(8),
        c=nn.Linear(32, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 4, 4, 3), orbits=[8, 8])


def test_filled_tensors(check, fn):
    def forward(m, x):
        x = m.a(x)
        ramp = torch.linspace(0, 1, x.shape[1]) + torch.arange(x.shape[1])
        return m.b(x + torch.zeros_like(x) + torch.full((x.shape[0], 7, 8), 0.5) + ramp[:, None])

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])
