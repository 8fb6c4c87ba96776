"""Results that are known without running a call, against torch on real tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from torch_dag_core.tracing.shortcuts import known_result

SHAPES = st.lists(st.integers(1, 3), max_size=3)
TYPES = st.sampled_from([torch.float32, torch.float32, torch.float32, torch.float64, torch.int64])
TENSORS = st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), SHAPES, TYPES)
SIZES = st.integers(0, 3) | st.none()
DIMS = st.integers(-3, 2) | st.lists(st.integers(-3, 2), max_size=3)


def floats(rank, largest):
    """Return tensors of one rank with sizes up to ``largest``."""
    shapes = st.lists(st.integers(1, largest), min_size=rank, max_size=rank)
    return shapes.map(torch.ones)


OF_CHANNELS = st.none() | floats(1, 4)
OF_FEATURES = st.none() | floats(1, 2) | floats(2, 2)
CALLS = {
    "add": st.tuples(TENSORS, TENSORS | st.floats(1, 2)),
    "mul": st.tuples(TENSORS, TENSORS),
    "maximum": st.tuples(TENSORS, TENSORS),
    "sigmoid": st.tuples(TENSORS),
    "clamp": st.tuples(TENSORS, st.floats(0, 1)),
    "flip": st.tuples(TENSORS, st.lists(st.integers(-3, 2), min_size=1, max_size=2)),
    "roll": st.tuples(TENSORS, st.integers(0, 2) | st.just((1, 1)), DIMS),
    "softmax": st.tuples(TENSORS, st.integers(-3, 2)),
    "batch_norm": st.tuples(
        floats(3, 2) | floats(2, 3), floats(1, 3), floats(1, 3), OF_CHANNELS, OF_CHANNELS, st.booleans()
    ),
    "instance_norm": st.tuples(floats(3, 3), floats(1, 3), floats(1, 3), OF_CHANNELS, OF_CHANNELS),
    "group_norm": st.tuples(floats(3, 4) | floats(2, 4), st.integers(0, 3), OF_CHANNELS, OF_CHANNELS),
    "layer_norm": st.tuples(floats(3, 2), st.lists(st.integers(1, 2), max_size=3), OF_FEATURES, OF_FEATURES),
    "rms_norm": st.tuples(floats(3, 2), st.lists(st.integers(1, 2), max_size=3), OF_FEATURES),
    "cat": st.tuples(st.lists(TENSORS, min_size=1, max_size=3), st.integers(-3, 2)),
    "mean": st.tuples(TENSORS, DIMS, st.booleans()),
    "norm": st.tuples(TENSORS, st.sampled_from([1, 2.0, "fro"]), DIMS, st.booleans()),
    "vector_norm": st.tuples(TENSORS, st.sampled_from([1, 2.0, 3]), DIMS, st.booleans()),
    "grid_sample": st.tuples(
        floats(4, 3), floats(3, 3).map(lambda x: torch.ones(*x.shape, 2)), st.sampled_from(["bilinear", "nearest"]),
        st.sampled_from(["zeros", "border"]), st.booleans(),
    ),
    "matmul": st.tuples(TENSORS, TENSORS),
    "conv1d": st.tuples(floats(3, 4), floats(3, 2), st.none() | floats(1, 2), *[st.integers(0, 2)] * 3),
    "conv2d": st.tuples(
        floats(4, 4), floats(4, 2), st.none(), *[st.integers(0, 2) | st.tuples(*[st.integers(0, 2)] * 2)] * 3,
        st.integers(1, 2),
    ),
    "adaptive_avg_pool2d": st.tuples(floats(4, 3) | floats(3, 3), st.integers(0, 2) | st.tuples(*[SIZES] * 2)),
}  # fmt: skip


PLACES = functional, torch, torch.linalg
"""Where torch has these functions."""


def blank(value):
    if isinstance(value, list):
        return [blank(item) for item in value]
    return value.to("meta") if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", CALLS)
def test_what_is_known_is_what_torch_gives(name):
    @given(CALLS[name])
    def check(args):
        found = known_result(name, tuple(map(blank, args)), {})
        if found is None:
            return
        expected = next(getattr(place, name) for place in PLACES if hasattr(place, name))(*args)
        assert (found.shape, found.dtype, found.is_meta) == (expected.shape, expected.dtype, True)

    check()


def test_sizes_that_broadcast_and_sizes_that_join_are_known():
    wide, thin = torch.empty(2, 3, 4, device="meta"), torch.empty(3, 1, device="meta")
    assert known_result("mul", (thin, wide), {}).shape == (2, 3, 4)
    assert known_result("cat", ([wide, wide, wide[:, :1]],), {"dim": -2}).shape == (2, 7, 4)
    assert known_result("add", (torch.empty(2, 1, device="meta"), torch.empty(1, 2, device="meta")), {}) is None


@pytest.mark.parametrize("name", ["relu", "silu", "hardswish", "relu6", "leaky_relu", "hardtanh"])
def test_activations_in_place_write_to_their_operand(name):
    x = torch.empty(2, 3, device="meta")
    version = x._version
    assert known_result(name, (x,), {"inplace": True}) is x
    assert x._version > version
    assert known_result(name, (x,), {"inplace": False}) is not x
    assert known_result("relu6", (x, True), {}) is x


def test_what_torch_refuses_is_not_known():
    x, weight = torch.empty(1, 4, 5, 5, device="meta"), torch.empty(2, 2, 3, 3, device="meta")
    settings = (None, 1, 0, 1)
    assert known_result("conv2d", (x, weight, *settings, 2), {}).shape == (1, 2, 3, 3)
    for wrong in (
        (x, weight),
        (x[:, :2], weight, None, 1, 0, 3),
        (x[:, :2], weight, None, 0),
        (x, weight, None, 2, "same"),
    ):
        assert known_result("conv2d", wrong, {}) is None
    assert known_result("conv1d", (x, weight, *settings, 2), {}) is None
    assert known_result("conv2d", (x.transpose(2, 3)[:, :, :3], weight, *settings, 2), {}) is None
    assert known_result("mean", (x,), {"dim": (2, -2)}) is None
    grid = torch.empty(1, 3, 3, 2, device="meta")
    assert known_result("grid_sample", (x, grid), {"align_corners": True}).shape == (1, 4, 3, 3)
    for wrong in ((x, grid.double()), (x, grid[..., :1]), (x, grid, "linear"), (x, grid.expand(2, -1, -1, -1))):
        assert known_result("grid_sample", wrong, {}) is None
    assert known_result("norm", (x,), {"p": 2, "dim": (2, 3), "keepdim": True}).shape == (1, 4, 1, 1)
    assert known_result("mean", (x, (2, 3)), {"keepdim": True, "dtype": None}).shape == (1, 4, 1, 1)
    assert known_result("matmul", (x, x[..., :4, :].double()), {}) is None


def test_attention_is_known_only_where_its_mask_fits():
    tokens = torch.empty(2, 4, 6, 8, device="meta")
    for mask in (None, torch.empty(6, 6), torch.empty(1, 4, 1, 6, device="meta")):
        assert known_result("scaled_dot_product_attention", (tokens, tokens, tokens, mask), {}).shape == tokens.shape
    for operands in ((tokens, tokens, tokens, torch.empty(5, 5)), (tokens, tokens[..., :3], tokens)):
        assert known_result("scaled_dot_product_attention", operands, {}) is None


@pytest.mark.parametrize(("name", "gates"), [("gru_cell", 3), ("rnn_tanh_cell", 1), ("rnn_relu_cell", 1)])
def test_a_step_of_a_recurrent_network_gives_its_next_state(name, gates):
    x, state = torch.ones(2, 3), torch.ones(2, 5)
    weights = torch.ones(5 * gates, 3), torch.ones(5 * gates, 5), torch.ones(5 * gates), None
    found = known_result(name, tuple(map(blank, (x, state, *weights))), {})
    expected = getattr(torch, name)(x, state, *weights[:3], weights[2])
    assert (found.shape, found.dtype, found.is_meta) == (expected.shape, expected.dtype, True)
    for wrong in ((x[:, :2], state), (x, state[:, :4]), (x[:1], state), (x.double(), state), (x[0], state[0])):
        assert known_result(name, tuple(map(blank, (*wrong, *weights))), {}) is None


def test_a_step_of_an_lstm_gives_both_states():
    x, state = torch.ones(2, 3), torch.ones(2, 5)
    weights = torch.ones(20, 3), torch.ones(20, 5), torch.ones(20), torch.ones(20)
    found = known_result("lstm_cell", tuple(map(blank, (x, [state, state], *weights))), {})
    assert [part.shape for part in found] == [(2, 5), (2, 5)]
    assert known_result("lstm_cell", tuple(map(blank, (x, [state, state[:1]], *weights))), {}) is None
