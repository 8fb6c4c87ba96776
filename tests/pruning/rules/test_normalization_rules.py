"""Normalisations over prunable axes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8), nn.RMSNorm(8, eps=1e-6)]
)
def test_over_the_last_axis(check, fn, norm):
    net = fn(lambda m, x: m.b(m.norm(m.a(x))), a=nn.Linear(5, 8), norm=norm, b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])


def test_over_channels_and_space(check, fn):
    net = fn(lambda m, x: m.b(m.norm(m.a(x))), a=nn.Conv2d(3, 8, 1), norm=nn.LayerNorm([8, 4, 4]), b=nn.Conv2d(8, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), orbits=[8])


def test_head_norms(check, fn):
    def forward(m, x):
        q = m.norm(m.a(x).reshape(len(x), 7, 4, 3))
        return m.b(q.flatten(2))

    net = fn(forward, a=nn.Linear(5, 12), norm=nn.LayerNorm(3), b=nn.Linear(12, 3))
    check(net, torch.randn(2, 7, 5), orbits=[4, 3])


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_group_norm(check, fn, groups):
    net = fn(lambda m, x: m.b(m.norm(m.a(x))), a=nn.Conv2d(3, 8, 1), norm=nn.GroupNorm(groups, 8), b=nn.Conv2d(8, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["group_norm"], orbits={1: [8], 4: [4, 2], 8: [8]}[groups])


def test_functional_norms(check, fn):
    def forward(m, x):
        x = F.layer_norm(m.a(x), (8,), m.w * 2, m.c, 1e-5)
        x = F.rms_norm(x, (8,), m.w + 1)
        x = F.group_norm(x.transpose(1, 2), 4, m.w, m.c * 2)
        return m.b(x.transpose(1, 2))

    net = fn(
        forward, a=nn.Linear(5, 8), w=nn.Parameter(torch.randn(8)), c=nn.Parameter(torch.randn(8)), b=nn.Linear(8, 3)
    )
    ops = ["layer_norm_function", "rms_norm_function", "group_norm_function"]
    check(net, torch.randn(2, 7, 5), ops=ops, orbits=[4, 2])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(check, fn, rank, affine):
    conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[rank - 1]
    net = fn(lambda m, x: m.b(F.relu(m.norm(m.a(x)))), a=conv(3, 8, 1), norm=norm(8, affine=affine), b=conv(8, 3, 1))
    check(net, torch.randn(2, 3, *[4] * rank), ops=[f"batch_norm{rank}d"], orbits=[8])


def test_batch_statistics_over_pruned_channels_merged_into_the_batch(check, fn):
    """Each channel becomes a sample; without running statistics the batch decides in evaluation too."""

    def forward(m, x):
        y = m.a(x)
        normal = m.norm(y.transpose(1, 2).reshape(-1, 7)).reshape(len(x), 8, 7).transpose(1, 2)
        return m.b(normal)

    net = fn(forward, a=nn.Linear(5, 8), norm=nn.BatchNorm1d(7, track_running_stats=False), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_instance_norm(check, fn, rank):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[rank - 1]
    net = fn(
        lambda m, x: m.b(F.relu(m.norm(m.a(x)))),
        a=conv(3, 8, 1), norm=norm(8, affine=True, track_running_stats=True), b=conv(8, 3, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 3, *[4] * rank), ops=[f"instance_norm{rank}d"], orbits=[8])


def test_frozen_batch_norm(check, fn):
    def forward(m, x):
        x = F.batch_norm(m.a(x), m.running_mean, m.running_var, m.w, m.c, training=False)
        return m.b(F.relu(x))

    net = fn(
        forward,
        a=nn.Conv2d(3, 8, 1),
        w=nn.Parameter(torch.randn(8)),
        c=nn.Parameter(torch.randn(8)),
        b=nn.Conv2d(8, 3, 1),
    )
    net.register_buffer("running_mean", torch.randn(8))
    net.register_buffer("running_var", torch.rand(8) + 0.5)
    check(net, torch.randn(2, 3, 4, 4), ops=["frozen_batch_norm"], orbits=[8])


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_normalize(check, fn, p):
    net = fn(lambda m, x: m.b(F.normalize(m.a(x), p=p, dim=-1)), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["normalize"], orbits=[8])


def test_response_norm_freezes_channels(check, fn):
    net = fn(lambda m, x: m.b(m.norm(m.a(x))), a=nn.Conv2d(3, 8, 1), norm=nn.LocalResponseNorm(3), b=nn.Conv2d(8, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["local_response_norm"], orbits=[], seeds=[1])


def test_global_response_norm(check, fn):
    def forward(m, x):
        x = F.gelu(m.a(x))
        spread = x.norm(p=2, dim=(1, 2), keepdim=True)
        x = x + m.w * (x * (spread / (spread.mean(-1, keepdim=True) + 1e-6))) + m.c
        return m.b(x)

    net = fn(
        forward, a=nn.Linear(5, 8), w=nn.Parameter(torch.randn(8)), c=nn.Parameter(torch.randn(8)), b=nn.Linear(8, 3)
    )
    check(net, torch.randn(2, 4, 4, 5), orbits=[8])
