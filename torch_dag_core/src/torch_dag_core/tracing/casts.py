"""Which operands autocast casts in a call: seen by a run without data, proved by another with these casts before it.

Where the terms of the two runs do not tell all, because kernels may call other operators or because strides differ,
both calls are made with numbers and compared as well.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.tracing.autocasting import AutocastBlocks
from torch_dag_core.tracing.cast_runs import CastRun, Casts, Given, Terms
from torch_dag_core.tracing.execution import Function
from torch_dag_core.tracing.held import HeldTensors
from torch_dag_core.tracing.pause import Pause, WithGradient, WithoutGradient
from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.settled import plain
from torch_dag_core.tracing.tensors import tensors_in

Record: TypeAlias = Callable[[Tensor, torch.dtype], Tensor]
_SINGLE = frozenset({
    "aten.addmm.default", "aten.mm.default", "aten.bmm.default", "aten.baddbmm.default", "aten.mv.default",
    "aten.convolution.default", "aten._softmax.default", "aten._log_softmax.default", "aten.native_layer_norm.default",
    "aten.native_group_norm.default", "aten.native_batch_norm.default", "aten._native_batch_norm_legit.default",
    "aten.cat.default", "aten.stack.default", "aten.gelu.default", "aten.exp.default", "aten.log.default",
    "aten.rsqrt.default", "aten.pow.Tensor_Scalar", "aten.mul.Tensor", "aten.add.Tensor", "aten.sub.Tensor",
    "aten.div.Tensor", "aten.sum.default", "aten.sum.dim_IntList", "aten.linalg_vector_norm.default",
    "aten.clamp_min.default", "aten.avg_pool2d.default", "aten.constant_pad_nd.default", "aten.expand.default",
    "aten.slice.Tensor", "aten._to_copy.default", "aten.empty_like.default", "aten.empty.memory_format",
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
})  # fmt: skip
"""Operators whose kernels call no others that autocast could change."""
_FAILURES = (RuntimeError, TypeError, ValueError, AssertionError)
"""What operators raise on the meta device."""
_NO_CASTS = Casts({})
_MOST_FOUND = 4096
_found: dict[Hashable, Casts] = {}
"""What was seen of earlier calls, because models consist of many equal blocks, and conversions of several runs."""


class UnseenError(Exception):
    """What autocast does to a call is not what casts of its operands do."""


class RecordedCasts:
    """Records the casts that autocast makes.

    Args:
        blocks: The blocks that the model is in.
        held: The model's own tensors.
        device: The device of the model.
        pause: Inside it, calls run unrecorded.
    """

    def __init__(
        self, blocks: AutocastBlocks, held: HeldTensors, device: torch.device, pause: Pause
    ) -> None:  # fmt: skip
        self._blocks, self._held, self._device, self._pause = blocks, held, device, pause

    def before(self, function: Function, given: Given, record: Record) -> Given:
        """Record the casts before a call; return the arguments with the results in them.

        Args:
            function: What is called.
            given: The arguments.
            record: Records one cast, and returns its result.

        Raises:
            UnseenError: no casts of operands are what autocast does.
        """
        if not any(tensor.is_floating_point() for tensor in tensors_in(*given)):
            return given
        args, kwargs = given
        with self._pause, WithoutGradient():
            casts = casts_of(function, (plain(args), plain(kwargs)), self._device)
        return casts.made_in(given, partial(self._cast, record))

    def _cast(self, record: Record, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Record a cast, or take that of an earlier call where autocast keeps it: of parameters, to its own type."""
        held, key = self._held.find(tensor), (id(tensor), dtype)
        is_kept = (
            held is not None and held.is_parameter and tensor.dtype == torch.float32
            and dtype == self._blocks.dtype(self._device.type) and torch.is_autocast_cache_enabled()
        )  # fmt: skip
        if not is_kept:
            return record(tensor, dtype)
        if key not in self._blocks.shared:
            with WithGradient():  # which torch keeps for later calls, whoever made the first
                self._blocks.shared[key] = record(tensor, dtype)
        return self._blocks.shared[key]


def casts_of(function: Function, given: Given, device: torch.device) -> Casts:
    """Return what the autocast of this thread does to a call on a device.

    Raises:
        UnseenError: it casts between the steps of the function, or what it does cannot be seen without data.
    """
    key = function, device, torch.get_autocast_dtype(device.type), repr(map_leaves(given, _described))
    if key not in _found:
        if len(_found) == _MOST_FOUND:
            _found.clear()
        _found[key] = _observed(function, given, device)
    return _found[key]


def _described(leaf: Live) -> object:
    if not isinstance(leaf, Tensor):
        return leaf
    return f"{leaf.dtype} {tuple(leaf.shape)} {leaf.stride()} {leaf.is_meta}"


def _observed(function: Function, given: Given, device: torch.device) -> Casts:
    terms = Terms()
    try:
        wanted = CastRun(terms, device).call(function, given, _NO_CASTS, autocast=True)
        seen = Casts(dict(wanted.casts))
        for casts in (_NO_CASTS, seen, Casts({}, torch.float32)):
            if _is_proved(CastRun(terms, device), wanted, function, given, casts):
                return casts
            if len(wanted.casts) > len(seen.dtypes):  # an operand that is cast twice has two gradients
                break
    except _FAILURES as error:
        message = f"without data, it fails: {error}"
        raise UnseenError(message) from error
    message = "autocast casts between its steps"
    raise UnseenError(message)


def _is_proved(run: CastRun, wanted: CastRun, function: Function, given: Given, casts: Casts) -> bool:
    """Tell whether a call without autocast does what one with it does, given these casts before it.

    Raises:
        UnseenError: it would, but for what autocast does inside of a kernel.
    """
    try:
        run.call(function, given, casts, autocast=False)
    except _FAILURES:  # operands of different types, or a function that takes no dtype
        return False
    if not run.is_same_as(wanted) or not casts.dtypes.keys().isdisjoint(run.written):
        return False
    if not wanted.names <= _SINGLE or run.layouts != wanted.layouts:
        _check_on_numbers(function, given, run.device, casts)
    return True


def _check_on_numbers(function: Function, given: Given, device: torch.device, casts: Casts) -> None:
    """Refuse a call whose kernels call others that autocast changes: it computes something else from some numbers."""

    def numbers() -> Given:
        made: Given = map_leaves(given, lambda leaf: _numbers(leaf, device) if isinstance(leaf, Tensor) else leaf)
        return made

    state = torch.default_generator.get_state()
    args, kwargs = numbers()
    expected = function(*args, **kwargs)
    torch.default_generator.set_state(state)
    args, kwargs = casts.made_in(numbers(), lambda tensor, dtype: tensor.to(dtype))
    with torch._C._DisableAutocast():
        actual = function(*args, **kwargs)
    torch.default_generator.set_state(state)
    if not all(map(_same, leaves(expected), leaves(actual))):
        message = "autocast casts inside of its kernel"
        raise UnseenError(message)


def _numbers(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a copy where there is data; else different numbers in the same layout, zeros where they may be indices."""
    if not tensor.is_meta:
        return tensor.clone()
    if not tensor.is_floating_point() or not tensor.numel():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    numbers = torch.arange(last + 1, dtype=torch.float64, device=device).cos().to(tensor.dtype)
    return numbers.as_strided(tensor.shape, tensor.stride())


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(one == other)
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
