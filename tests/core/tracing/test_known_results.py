"""Results that are known without running a call, against torch on real tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_dag_core.tracing.shortcuts import known_result

SHAPES = st.lists(st.integers(1, 3), max_size=3)
TYPES = st.sampled_from([torch.float32, torch.float32, torch.float32, torch.float64, torch.int64])
TENSORS = st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), SHAPES, TYPES)
CALLS = {
    "add": st.tuples(TENSORS, TENSORS | st.floats(1, 2)),
    "mul": st.tuples(TENSORS, TENSORS),
    "maximum": st.tuples(TENSORS, TENSORS),
    "sigmoid": st.tuples(TENSORS),
    "clamp": st.tuples(TENSORS, st.floats(0, 1)),
    "flip": st.tuples(TENSORS, st.just((0,))),
    "roll": st.tuples(TENSORS, st.integers(0, 2)),
    "cat": st.tuples(st.lists(TENSORS, min_size=1, max_size=3), st.integers(-3, 2)),
}


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
        expected = getattr(torch, name)(*args)
        assert (found.shape, found.dtype, found.is_meta) == (expected.shape, expected.dtype, True)

    check()


def test_sizes_that_broadcast_and_sizes_that_join_are_known():
    wide, thin = torch.empty(2, 3, 4, device="meta"), torch.empty(3, 1, device="meta")
    assert known_result("mul", (thin, wide), {}).shape == (2, 3, 4)
    assert known_result("cat", ([wide, wide, wide[:, :1]],), {"dim": -2}).shape == (2, 7, 4)
    assert known_result("add", (torch.empty(2, 1, device="meta"), torch.empty(1, 2, device="meta")), {}) is None


def test_attention_is_known_only_where_its_mask_fits():
    tokens = torch.empty(2, 4, 6, 8, device="meta")
    for mask in (None, torch.empty(6, 6), torch.empty(1, 4, 1, 6, device="meta")):
        assert known_result("scaled_dot_product_attention", (tokens, tokens, tokens, mask), {}).shape == tokens.shape
    for operands in ((tokens, tokens, tokens, torch.empty(5, 5)), (tokens, tokens[..., :3], tokens)):
        assert known_result("scaled_dot_product_attention", operands, {}) is None
