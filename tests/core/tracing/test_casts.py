"""What autocast casts in a call, seen without data, also for devices that this machine lacks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.tracing.autocast_functions import CAST_TO_SINGLE, LEFT_ALONE, NEVER_CAST
from torch_dag_core.tracing.casts import UnseenError, casts_of

HALF = {"cpu": torch.bfloat16, "cuda": torch.float16}


@pytest.fixture(params=HALF)
def device(request):
    """Switch autocast on for a device, which need not be there."""
    torch.set_autocast_enabled(request.param, True)
    yield torch.device(request.param)
    torch.set_autocast_enabled(request.param, False)


def seen(function, *args, device, **kwargs):
    args = [argument.to("meta") if isinstance(argument, torch.Tensor) else argument for argument in args]
    with torch.no_grad():
        return casts_of(function, (tuple(args), kwargs), device)


def single(*shape):
    return torch.empty(shape, device="meta")


PRODUCTS = {
    "linear": (functional.linear, single(2, 6), single(3, 6), single(3)),
    "matmul": (torch.matmul, single(2, 6), single(6, 3)),
    "bmm": (torch.bmm, single(2, 3, 6), single(2, 6, 3)),
    "addmm": (torch.addmm, single(3), single(2, 6), single(6, 3)),
    "conv2d": (functional.conv2d, single(2, 3, 6, 6), single(4, 3, 3, 3), single(4)),
    "conv_transpose2d": (functional.conv_transpose2d, single(2, 3, 6, 6), single(3, 4, 3, 3)),
    "attention": (functional.scaled_dot_product_attention, *[single(2, 2, 5, 4)] * 3),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_operand_of_a_product_is_cast(name, device, monkeypatch):
    monkeypatch.setattr("torch_dag_core.tracing.casts._check_on_numbers", lambda *_: None)  # needs the device itself
    function, *operands = PRODUCTS[name]
    casts = seen(function, *operands, device=device)
    assert casts.dtypes == dict.fromkeys(range(len(operands)), HALF[device.type])
    cast = [operand.to(HALF[device.type]) for operand in operands]
    assert seen(function, *cast, device=device).dtypes == {}
    assert seen(function, *[operand.double() for operand in operands], device=device).dtypes == {}


def test_places_count_the_leaves_of_nested_arguments(device):
    x, half = single(2, 3), single(2, 3).to(HALF[device.type])
    assert seen(torch.einsum, "ij,kj->ik", x, half, device=device).dtypes == {1: HALF[device.type]}
    assert casts_of(torch.cat, (([half, x],), {"dim": 0}), device).dtypes in ({}, {0: torch.float32})


@pytest.mark.parametrize("function", [torch.sum, torch.cumsum, torch.Tensor.sum])
def test_sums_of_half_numbers_are_asked_for_in_single_precision_on_cuda(function, monkeypatch):
    monkeypatch.setattr("torch_dag_core.tracing.casts._check_on_numbers", lambda *_: None)
    torch.set_autocast_enabled("cuda", True)
    try:
        casts = seen(function, single(2, 3).half(), 1, device=torch.device("cuda"))
        same = seen(function, single(2, 3), 1, device=torch.device("cuda"))
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert (casts.dtypes, casts.dtype) == ({}, torch.float32)
    assert (same.dtypes, same.dtype) == ({}, None)


EXAMPLES = (
    (), (2,), (0, 1), (-1,), ((2, 3),), (torch.float32,), ("same",), ("same", "same"), (0, "indices"), ("mask", 1.0),
    (1, 1), (0, 0, 1), ((1, 2), (0, 1)),
)  # fmt: skip


def calls_of(name, dtype):
    """Yield the calls of a function that take a tensor of 2 x 3, and something else."""
    x = torch.empty(2, 3, dtype=dtype, device="meta")
    named = {"same": x, "indices": torch.zeros(2, 3, dtype=torch.long), "mask": torch.ones(2, 3, dtype=torch.bool)}
    for space in (torch, functional, torch.Tensor):
        if callable(getattr(space, name, None)):
            for rest in EXAMPLES:
                yield getattr(space, name), (x, *(named.get(i, i) if isinstance(i, str) else i for i in rest))


def found_for(name, dtype, device):
    found = []
    for function, args in calls_of(name, dtype):
        try:
            found.append(seen(function, *args, device=device))
        except Exception as error:  # noqa: BLE001  most of these are no calls
            assert "between its steps" not in str(error)  # noqa: PT017
    return found


@pytest.mark.filterwarnings("ignore")  # of calls that are only tried
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_functions_that_are_never_cast_are_not(device, dtype, monkeypatch):
    monkeypatch.setattr("torch_dag_core.tracing.casts._check_on_numbers", lambda *_: None)
    found = {name: found_for(name, dtype, device) for name in sorted(NEVER_CAST)}
    assert {name for name, casts in found.items() if any(each.dtypes or each.dtype for each in casts)} == set()
    assert sum(map(bool, found.values())) > 100


@pytest.mark.filterwarnings("ignore")
def test_functions_of_single_precision_leave_single_numbers_alone(device, monkeypatch):
    monkeypatch.setattr("torch_dag_core.tracing.casts._check_on_numbers", lambda *_: None)
    names = CAST_TO_SINGLE
    if device.type == "cuda" and not torch.cuda.is_available():
        names = names - {"softmax", "log_softmax", "softmin"}  # which ask the driver first
    found = {name: found_for(name, torch.float32, device) for name in sorted(names)}
    assert {name for name, casts in found.items() if any(each.dtypes or each.dtype for each in casts)} == set()
    assert sum(map(bool, found.values())) > 25


def example_of(kind):
    shape = {"1d": (2, 4, 6), "3d": (2, 4, 6, 6, 6)}.get(kind.__name__[-2:].lower(), (2, 4, 6, 6))
    return torch.empty(shape, device="meta")


ARGUMENTS = {
    nn.Unflatten: (1, (2, 2)), nn.Embedding: (5, 4), nn.PixelShuffle: (2,), nn.PixelUnshuffle: (2,),
    nn.ChannelShuffle: (2,), nn.AdaptiveAvgPool1d: (2,), nn.AdaptiveAvgPool2d: (2,), nn.CELU: (),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), (4,)),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d), (2,)),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(LEFT_ALONE, key=str))
@pytest.mark.parametrize("training", [True, False])
def test_modules_that_are_left_alone_are(kind, training, device, monkeypatch):
    monkeypatch.setattr("torch_dag_core.tracing.casts._check_on_numbers", lambda *_: None)
    module = kind(*ARGUMENTS.get(kind, ())).train(training)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def call(x, tensors):
        return torch.func.functional_call(module, tensors, (x,))

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.zeros(2, 3, dtype=torch.long) if kind is nn.Embedding else example_of(kind).to(dtype)
        casts = seen(call, x, tensors, device=device)
        assert (casts.dtypes, casts.dtype) == ({}, None)


@pytest.mark.parametrize("kind", sorted(LEFT_ALONE, key=str))
def test_modules_that_are_left_alone_give_the_same_numbers(kind):
    module = kind(*ARGUMENTS.get(kind, ())).eval()
    for dtype in (torch.float32, torch.bfloat16):
        example = example_of(kind)
        x = torch.randint(5, (2, 3)) if kind is nn.Embedding else torch.randn(example.shape).to(dtype)
        expected = module(x)
        with torch.autocast("cpu"):
            found = module(x)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_a_call_that_needs_data_is_unseen():
    with torch.autocast("cpu"), pytest.raises(UnseenError, match="without data"):
        seen(lambda x: x @ x if x.sum() > 0 else x, single(3, 3), device=torch.device("cpu"))


def test_an_operand_that_is_cast_twice_is_unseen():
    with torch.autocast("cpu"), pytest.raises(UnseenError, match="between its steps"):
        seen(lambda x: x @ x, single(3, 3), device=torch.device("cpu"))


def test_an_operand_that_is_read_before_and_after_the_cast_is_unseen():
    with torch.autocast("cpu"), pytest.raises(UnseenError, match="between its steps"):
        seen(lambda x, y: (x @ y) + x, single(3, 3), single(3, 3), device=torch.device("cpu"))


def test_what_a_kernel_casts_is_unseen():
    with torch.autocast("cpu"), pytest.raises(UnseenError, match="inside of its kernel"):
        seen(functional.bilinear, single(2, 6), single(2, 6), single(3, 6, 6), device=torch.device("cpu"))


def test_rearranged_operands_count_as_operands():
    with torch.autocast("cpu"):
        casts = seen(
            lambda x, y: x.T.reshape(3, 2) @ y[None].squeeze(0), single(2, 3), single(2, 4), device=torch.device("cpu")
        )
    assert casts.dtypes == dict.fromkeys(range(2), torch.bfloat16)
