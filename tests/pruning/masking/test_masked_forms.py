"""Masked modules against the ops themselves: at full masks, and on the slots that are left."""

import pytest
import torch
from torch import nn

from torch_dag_core.ops import normalization, reduction
from torch_dag_pruning.axes import AxisSolver, mask
from torch_dag_pruning.masked_ops import normalizations, reductions


def atoms(*sizes):
    solver = AxisSolver()
    return [solver.atom(n) for n in sizes]


def lookup(masks):
    return lambda axis: mask(axis, masks)


def norm_of(build, op):
    def make(mask_of, axes):
        return build(op, axes, mask_of)

    return make


def reduction_of(build, op, dims):
    def make(mask_of, axes):
        return build(op, dims, axes, mask_of)

    return make


# name: (op of n slots, masked form, masked dimensions of a (3, 8, 6) tensor, the op on fewer slots)
FORMS = {
    "layer norm": (lambda n: nn.LayerNorm(n, elementwise_affine=False), normalizations.MaskedLayerNorm, None, (2,)),
    "rms norm": (lambda n: nn.RMSNorm(n, elementwise_affine=False), normalizations.MaskedRMSNorm, None, (2,)),
    "normalize": (lambda n: normalization.Normalize(dim=1), normalizations.MaskedNormalize, (1,), (1,)),
    "normalize by the largest": (
        lambda n: normalization.Normalize(p=float("inf"), dim=1),
        normalizations.MaskedNormalize,
        (1,),
        (1,),
    ),
    "mean": (lambda n: reduction.Mean(1), reductions.MaskedMean, (1,), (1,)),
    "mean, kept": (lambda n: reduction.Mean((1, 2), keepdim=True), reductions.MaskedMean, (1, 2), (1, 2)),
    "amax": (lambda n: reduction.Amax((1,)), reductions.MaskedExtreme, (1,), (1,)),
    "amin": (lambda n: reduction.Amin((1, 2), keepdim=True), reductions.MaskedExtreme, (1, 2), (1, 2)),
    "var": (lambda n: reduction.Var((1, 2)), reductions.MaskedVariance, (1, 2), (1, 2)),
    "std": (lambda n: reduction.Std(1, keepdim=True), reductions.MaskedVariance, (1,), (1,)),
    "logsumexp": (lambda n: reduction.LogSumExp(1), reductions.MaskedLogSumExp, (1,), (1,)),
}


def made(name, mask_of, axes):
    op, build, dims, _ = FORMS[name]
    args = (op(6),) if dims is None else (op(6), dims)
    return build(*args, axes, mask_of)


def reduced_axes(name):
    sizes = (3, 8, 6)
    return atoms(*(sizes[dim] for dim in FORMS[name][3]))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_full_masks_change_nothing(name, dtype):
    axes = reduced_axes(name)
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    masks = {axis.id: torch.ones(axis.n) for axis in axes}
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3}[dtype]
    result = made(name, lookup(masks), axes)(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result, FORMS[name][0](6)(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("garbage", [0.7, 1e30, float("nan"), float("inf")])
def test_dead_slots_have_no_part(name, garbage):
    axes = reduced_axes(name)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 8, 6, dtype=torch.float64, generator=generator)
    kept = {}
    for dim, axis in zip(FORMS[name][3], axes, strict=True):
        kept[dim] = torch.randperm(axis.n, generator=generator)[:4].sort().values
        dead = torch.ones(axis.n, dtype=torch.bool)
        dead[kept[dim]] = False
        x[(slice(None),) * dim + (dead,)] = garbage
    masks = {
        a.id: torch.zeros(a.n, dtype=torch.float64).index_fill(0, kept[d], 1.0) for d, a in zip(kept, axes, strict=True)
    }
    masked = made(name, lookup(masks), axes)(x)
    small = x
    for dim, index in kept.items():
        small = small.index_select(dim, index)
    wanted = FORMS[name][0](4)(small)
    for dim, index in kept.items():
        if masked.shape != wanted.shape:
            masked = masked.index_select(dim, index)
    torch.testing.assert_close(masked, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_finite_where_slots_are_dead(name):
    axes = reduced_axes(name)
    masks = {axis.id: (torch.arange(axis.n) % 2).double().requires_grad_() for axis in axes}
    x = torch.randn(3, 8, 6, dtype=torch.float64, requires_grad=True)
    made(name, lookup(masks), axes)(x).sum().backward()
    assert bool(x.grad.isfinite().all())
    assert all(value.grad is None or bool(value.grad.isfinite().all()) for value in masks.values())


@pytest.mark.parametrize("name", FORMS)
def test_nothing_left_is_finite(name):
    axes = reduced_axes(name)
    masks = {axis.id: torch.zeros(axis.n) for axis in axes}
    result = made(name, lookup(masks), axes)(torch.randn(3, 8, 6))
    assert not bool(result.isnan().any())


@pytest.mark.parametrize("op", [nn.Softmax(1), nn.LogSoftmax(1), nn.Softmin(1)])
def test_softmax(op):
    (axis,) = atoms(8)
    index = torch.tensor([0, 2, 3, 7])
    weights = torch.zeros(8, dtype=torch.float64).index_fill(0, index, 1.0)
    x = torch.randn(3, 8, 6, dtype=torch.float64)
    x[:, 1] = float("inf")
    masked = reductions.MaskedSoftmax(op, 1, axis, lookup({axis.id: weights}))(x)
    torch.testing.assert_close(masked[:, index], op(x[:, index]), rtol=1e-12, atol=1e-12)
    assert bool(masked[:, [1, 4, 5, 6]].isfinite().all())
    if not isinstance(op, nn.LogSoftmax):
        assert float(masked[:, [1, 4, 5, 6]].abs().max()) == 0.0


def test_softmax_has_a_gradient_at_zero():
    (axis,) = atoms(8)
    weights = (torch.arange(8) % 2).double().requires_grad_()
    reductions.MaskedSoftmax(nn.Softmax(-1), 1, axis, lookup({axis.id: weights}))(
        torch.randn(3, 8)
    ).square().sum().backward()
    assert bool(weights.grad.isfinite().all())
    assert float(weights.grad[::2].abs().min()) > 0.0 or bool((weights.grad[::2] == 0).all())


def test_group_norm_masks_within_groups():
    (each,) = atoms(3)
    op = nn.GroupNorm(4, 12, dtype=torch.float64)
    torch.nn.init.normal_(op.weight)
    weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    kept = torch.arange(12).reshape(4, 3)[:, [0, 2]].flatten()
    x = torch.randn(2, 12, 5, dtype=torch.float64)
    small = nn.GroupNorm(4, 8, dtype=torch.float64)
    small.weight.data, small.bias.data = op.weight.data[kept], op.bias.data[kept]
    masked = normalizations.MaskedGroupNorm(op, (each, AxisSolver().fixed(5)), _or_none({each.id: weights}))
    torch.testing.assert_close(masked(x)[:, kept], small(x[:, kept]), rtol=1e-12, atol=1e-12)


def _or_none(masks):
    return lambda axis: mask(axis, masks) if getattr(axis, "id", None) in masks else None


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_takes_statistics_of_live_samples(momentum):
    """The batch is samples times heads, of which one is dead; another batch than the analysed one as well."""
    solver = AxisSolver()
    heads = solver.atom(3)
    from torch_dag_pruning.axes import product

    axes = (product(solver.fixed(2), heads), solver.fixed(5))
    weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    op, small = (nn.BatchNorm1d(4, momentum=momentum, dtype=torch.float64).train() for _ in range(2))
    masked = normalizations.MaskedBatchNorm(op, axes, lambda axis: mask(axis, {heads.id: weights}))
    for samples in (2, 4):
        x = torch.randn(samples, 3, 4, 5, dtype=torch.float64)
        live = small(x[:, [0, 2]].flatten(0, 1)).unflatten(0, (samples, 2))
        torch.testing.assert_close(
            masked(x.flatten(0, 1)).unflatten(0, (samples, 3))[:, [0, 2]], live, rtol=1e-10, atol=1e-10
        )
    torch.testing.assert_close(masked.running_mean, small.running_mean)
    torch.testing.assert_close(masked.running_var, small.running_var)
    masked.eval(), small.eval()
    torch.testing.assert_close(masked(x.flatten(0, 1)), small(x.flatten(0, 1)))


def test_parameters_and_keys_are_those_of_the_op():
    (axis,) = atoms(8)
    op = nn.LayerNorm(8)
    masked = normalizations.MaskedLayerNorm(op, (axis,), lookup({axis.id: torch.ones(8)}))
    assert masked.weight is op.weight
    assert masked.state_dict().keys() == op.state_dict().keys()


def test_masks_can_be_renewed():
    (axis,) = atoms(8)
    masked = normalizations.MaskedLayerNorm(nn.LayerNorm(8), (axis,), lookup({axis.id: torch.ones(8)}))
    x = torch.randn(3, 8)
    before = masked(x)
    learned = torch.full((8,), 0.5, requires_grad=True)
    masked.update_masks(lookup({axis.id: torch.cat([learned[:4], torch.ones(4)])}))
    after = masked(x)
    assert not torch.allclose(before, after)
    after.square().sum().backward()
    assert float(learned.grad[:4].abs().max()) > 0.0
