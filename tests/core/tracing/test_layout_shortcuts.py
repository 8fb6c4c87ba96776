"""Copies and lookups that are known without running them, against torch on real tensors."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from torch_dag_core.tracing.shortcuts import known_result

SIZES = st.integers(1, 4)


@st.composite
def tensors(draw):
    """Return tensors of many layouts: dimensions exchanged, cut and repeated."""
    x = torch.zeros(draw(st.lists(SIZES, min_size=1, max_size=4)))
    x = x.permute(*draw(st.permutations(range(x.dim()))))
    if draw(st.booleans()):
        x = x[..., ::2]
    if draw(st.booleans()):
        x = x.narrow(0, 0, max(1, x.shape[0] - 1))
    return x.expand(2, *x.shape) if draw(st.booleans()) else x


@st.composite
def reshapes(draw):
    """Return a tensor and other sizes for its elements."""
    x, sizes = draw(tensors()), []
    rest = x.numel()
    while rest > 1:
        size = draw(st.sampled_from([n for n in range(2, rest + 1) if rest % n == 0]))
        sizes.append(size)
        rest //= size
    return x, draw(st.permutations([*sizes, *[1] * draw(st.integers(1, 2))]))


def blank(x):
    """Return a tensor without data of the same layout."""
    return torch.empty_strided(x.shape, x.stride(), device="meta")


@settings(deadline=None, max_examples=300)
@given(reshapes(), st.booleans())
def test_a_reshape_is_known_exactly_where_it_copies(given, leaves_one_open):
    x, sizes = given
    expected = x.reshape(sizes)
    wanted = [-1, *sizes[1:]] if leaves_one_open else sizes
    found = known_result("reshape", (blank(x), *wanted), {})
    shares = expected.data_ptr() == x.data_ptr()
    assert (found is None) == shares
    if found is not None:
        assert (found.shape, found.stride(), found.is_meta) == (expected.shape, expected.stride(), True)
        assert known_result("reshape", (blank(x), wanted), {}).shape == expected.shape


def test_a_reshape_that_torch_refuses_is_not_known():
    x = torch.empty(4, 6, device="meta").t()
    for sizes in ((5, 5), (-1, -1), (-1, 5), (0, -1), ("24",), ()):
        assert known_result("reshape", (x, sizes), {}) is None
    assert known_result("reshape", (x[:0], (0, 3)), {}) is None


@settings(deadline=None)
@given(tensors())
def test_contiguous_returns_the_operand_or_a_copy(x):
    y = blank(x)
    found, expected = known_result("contiguous", (y,), {}), x.contiguous()
    assert (found is y) == (expected is x)
    assert (found.shape, found.stride(), found.is_meta) == (expected.shape, expected.stride(), True)
    assert known_result("contiguous", (y,), {"memory_format": torch.channels_last}) is None


@settings(deadline=None)
@given(tensors(), st.lists(SIZES, min_size=1, max_size=3), st.sampled_from([torch.int64, torch.int32]))
def test_a_lookup_by_integers_copies_rows(x, shape, dtype):
    index = torch.zeros(shape, dtype=dtype)
    found = known_result("__getitem__", (blank(x), index), {})
    assert (found is not None) == x.is_contiguous()
    if found is not None:
        expected = x[index]
        assert (found.shape, found.is_contiguous(), found.is_meta) == (expected.shape, expected.is_contiguous(), True)


def test_other_subscripts_are_left_to_torch():
    x = torch.empty(3, 4, device="meta")
    for index in (torch.zeros(3, dtype=torch.bool), torch.tensor(1), torch.zeros(0, dtype=torch.int64), 0, slice(2)):
        assert known_result("__getitem__", (x, index), {}) is None


@settings(deadline=None)
@given(st.sampled_from([0, 0.0, 0.5, 1.0]), st.booleans(), st.booleans())
def test_a_dropout_that_is_off_returns_its_operand(p, training, by_name):
    x = torch.empty(2, 3, device="meta")
    given = ((x,), {"p": p, "training": training, "inplace": False}) if by_name else ((x, p, training), {})
    is_off = functional.dropout(real := torch.ones(2, 3), p, training=training) is real
    assert (known_result("dropout", *given) is x) == is_off


def test_a_dropout_that_torch_refuses_or_that_works_in_place_is_not_known():
    x = torch.empty(2, 3, device="meta")
    for args, kwargs in (((x, 1.5, False), {}), ((x, 0.5, False, True), {}), ((x,), {}), ((x, 0.5), {"train": False})):
        assert known_result("dropout", args, kwargs) is None


@settings(deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=3), st.lists(st.integers(1, 4), max_size=3))
def test_a_constant_that_broadcasts_to_an_operand_without_data_changes_nothing(shape, other):
    x, constant = torch.zeros(shape), torch.zeros(other)
    found = known_result("add", (x.to("meta"), constant), {})
    try:
        fits = (x + constant).shape == x.shape
    except RuntimeError:
        fits = False
    assert (found is not None) == (fits and math.prod(other) <= math.prod(shape))
    assert found is None or (found.shape, found.is_meta) == (x.shape, True)
