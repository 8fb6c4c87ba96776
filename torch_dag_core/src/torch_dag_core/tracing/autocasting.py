"""Blocks in which a model switches autocast on or off, and what a graph, which has none, computes in their place.

Inside a block that switches it on, the casts that autocast makes are recorded as calls; inside one that switches it
off, calls are recorded as they are. Both hold as long as the caller's own autocast changes nothing about them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import autocast

from torch_dag_core.graph.caller_state import DEVICES, SETTINGS, setting_is
from torch_dag_core.tracing.autocast_blocks import Block, asked_about, is_decided
from torch_dag_core.tracing.autocast_functions import CAST_TO_SINGLE, NEVER_CAST
from torch_dag_core.tracing.names import canonical

if TYPE_CHECKING:
    from torch_dag_core.tracing.recorder import Recorder

_FULL = (torch.float32, torch.float64)
_is_enabled, _dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
"""Kept here, because the names in ``torch`` are replaced while a model is traced."""


class AutocastBlocks:
    """The blocks that the running code is in, and what they need of a caller of the graph.

    Attributes:
        shared: The casts of parameters that autocast keeps until it leaves the outermost block, by the parameter's id
            and the type.
        switched_on: Types of device for which blocks have switched autocast on, those inside of leaves included.
    """

    def __init__(self) -> None:
        self.shared: dict[tuple[int, torch.dtype], Tensor] = {}
        self.switched_on: set[str] = set()
        self._stack: list[Block] = []
        self._outside = [(_is_enabled(device), _dtype(device)) for device in DEVICES]
        self._needed: dict[tuple[str, bool], None] = {}

    def __bool__(self) -> bool:
        """Tell whether code of a block is running."""
        return bool(self._stack)

    def enter(self, block: Block) -> None:
        """Begin a block."""
        self._stack.append(block)

    def leave(self) -> None:
        """End the innermost block."""
        if self._stack:
            self._stack.pop()
        if not self._stack:
            self.shared.clear()

    def innermost(self, device: str) -> Block | None:
        """Return the innermost block for a type of device."""
        return next((block for block in reversed(self._stack) if block.device == device), None)

    def dtype(self, device: str) -> torch.dtype | None:
        """Return what autocast casts to on a type of device; None where no block has switched it on."""
        block = self.innermost(device)
        return block.dtype if block is not None and block.enabled else None

    @property
    def is_all(self) -> bool:
        """Whether nothing but these blocks has changed the state of autocast."""
        if not self._stack:
            found = self._outside
        else:
            blocks = {device: self.innermost(device) for device in DEVICES}
            pairs = zip(blocks.values(), self._outside, strict=True)
            found = [outside if block is None else (block.enabled, block.dtype) for block, outside in pairs]
        return found == [(_is_enabled(device), _dtype(device)) for device in DEVICES]

    def computed(self, name: str, tensors: list[Tensor]) -> None:
        """Note a call of a function or a module: one that the caller's autocast would change needs that not to."""
        if not self._stack or canonical(name) in NEVER_CAST:
            return
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        if not floating or (canonical(name) in CAST_TO_SINGLE and all(t.dtype in _FULL for t in floating)):
            return
        for device in DEVICES:
            block = self.innermost(device)
            if block is not None:
                self._needed.update(dict.fromkeys(_needed(block)))

    @property
    def conditions(self) -> tuple[tuple[Any, ...], ...]:
        """The conditions on a caller of the graph, which has no such blocks."""
        return tuple(setting_is(name, value=value) for name, value in self._needed if name in SETTINGS)


def _needed(block: Block) -> Iterator[tuple[str, bool]]:
    """Yield the settings that let a graph compute what a block does, with their values."""
    dtype = str(block.dtype).removeprefix("torch.")
    if not block.enabled:
        yield f"autocast {block.device}", False
        return
    yield f"autocast {block.device} to another type than {dtype}", False
    if block.is_default:
        yield f"autocast dtype {block.device} {dtype}", True


# Watching ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched_autocast(recorder: Recorder) -> Iterator[None]:
    """Tell the recorder of the blocks that this thread enters and leaves; class-level patches, undone on exit."""
    making, entering, leaving = autocast.__init__, autocast.__enter__, autocast.__exit__
    thread = threading.get_ident()
    defaults: list[autocast] = []

    def is_watched() -> bool:
        return threading.get_ident() == thread and not recorder.pause

    def make(self: Any, device_type: str, dtype: torch.dtype | None = None, *args: Any, **kwargs: Any) -> None:
        if dtype is None and is_watched() and not is_decided(device_type, dtype=True):
            defaults.append(self)
        making(self, device_type, dtype, *args, **kwargs)

    def enter(self: Any) -> Any:
        if threading.get_ident() == thread and self._enabled:
            recorder.autocast.switched_on.add(self.device)
        if is_watched():
            is_default = any(self is default for default in defaults)
            recorder.autocast.enter(Block(self.device, bool(self._enabled), self.fast_dtype, is_default))
        return entering(self)  # type: ignore[no-untyped-call]

    def leave(self: Any, *error: Any) -> Any:
        if is_watched():
            recorder.autocast.leave()
        return leaving(self, *error)

    try:
        autocast.__init__, autocast.__enter__, autocast.__exit__ = make, enter, leave  # type: ignore[method-assign]
        with asked_about(recorder.autocast.innermost):
            yield
    finally:
        autocast.__init__, autocast.__enter__, autocast.__exit__ = making, entering, leaving  # type: ignore[method-assign]
