"""Blocks in which a model switches autocast off: what a graph computes there without a block of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import autocast

from torch_dag_core.graph.caller_state import DEVICES, setting_is
from torch_dag_core.tracing.names import canonical

if TYPE_CHECKING:
    from torch_dag_core.tracing.recorder import Recorder

_FULL = (torch.float32, torch.float64)
_NEVER_CAST = frozenset({
    "add", "sub", "mul", "div", "true_divide", "neg", "abs", "sign", "maximum", "minimum", "clamp", "relu", "sigmoid",
    "tanh", "silu", "sin", "cos", "sqrt", "square", "floor", "ceil", "round", "mean", "where", "eq", "ne", "lt", "le",
    "gt", "ge", "to", "float", "double", "half", "bfloat16", "int", "long", "bool", "type", "type_as", "clone",
    "detach", "contiguous", "alias", "copy", "fill", "zero", "masked_fill", "view", "reshape", "permute", "transpose",
    "expand", "expand_as", "view_as", "reshape_as", "unsqueeze", "squeeze", "flatten", "unflatten", "repeat", "roll",
    "flip", "narrow", "select", "chunk", "split", "unbind", "t", "T", "mT", "arange", "zeros", "ones", "full",
    "empty", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "tensor",
    "linspace", "dropout", "argmax", "argmin", "max", "min", "amax", "amin", "sort", "topk", "gather", "index_select",
    "embedding", "isnan", "isinf", "isfinite", "leaky_relu", "hardtanh", "relu6", "elu", "__add__", "__radd__",
    "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__neg__", "__getitem__", "__eq__",
    "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
})  # fmt: skip
"""Functions that autocast leaves alone on every device."""
_CAST_TO_SINGLE = frozenset({
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sinh",
    "tan", "pow", "__pow__", "__rpow__", "softplus", "softmax", "log_softmax", "softmin", "logsumexp", "layer_norm",
    "group_norm", "norm", "vector_norm", "sum", "prod", "cumsum", "cumprod", "cat", "concat", "stack", "var", "std",
    "mse_loss", "l1_loss", "smooth_l1_loss", "nll_loss", "cross_entropy", "cosine_similarity", "interpolate",
})  # fmt: skip
"""Functions that autocast computes in single precision, or in the widest type of their operands."""


class AutocastBlocks:
    """Which devices' autocast the running code has switched off, and what became of it."""

    def __init__(self) -> None:
        self._stack: list[tuple[str, bool]] = []
        self._needed: dict[str, None] = {}

    def enter(self, device: str, *, enabled: bool) -> None:
        """Begin a block."""
        self._stack.append((device, enabled))

    def leave(self) -> None:
        """End the innermost block."""
        if self._stack:
            self._stack.pop()

    def computed(self, name: str, tensors: list[Tensor]) -> None:
        """Note a call of a function or a module: one that autocast would change needs it to be off."""
        if not self._stack or canonical(name) in _NEVER_CAST:
            return
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        if not floating or (canonical(name) in _CAST_TO_SINGLE and all(t.dtype in _FULL for t in floating)):
            return
        state = dict(self._stack)  # the innermost block of each device counts
        self._needed.update(dict.fromkeys(device for device, enabled in state.items() if not enabled))

    @property
    def conditions(self) -> tuple[tuple[Any, ...], ...]:
        """The conditions on a caller of the graph, which has no such blocks."""
        return tuple(setting_is(f"autocast {device}", value=False) for device in self._needed if device in DEVICES)


@contextlib.contextmanager
def watched_autocast(recorder: Recorder) -> Iterator[None]:
    """Tell the recorder of the blocks that this thread enters and leaves; a class-level patch, undone on exit."""
    entering, leaving, thread = autocast.__enter__, autocast.__exit__, threading.get_ident()

    def enter(self: Any) -> Any:
        if threading.get_ident() == thread and not recorder.pause:
            recorder.autocast.enter(self.device, enabled=bool(self._enabled))
        return entering(self)  # type: ignore[no-untyped-call]

    def leave(self: Any, *error: Any) -> Any:
        if threading.get_ident() == thread and not recorder.pause:
            recorder.autocast.leave()
        return leaving(self, *error)

    try:
        autocast.__enter__, autocast.__exit__ = enter, leave  # type: ignore[method-assign]
        yield
    finally:
        autocast.__enter__, autocast.__exit__ = entering, leaving  # type: ignore[method-assign]
