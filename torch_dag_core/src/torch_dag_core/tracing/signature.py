"""What a recording computes, as a function of inputs, parameters and buffers: equal for recordings that do the same.

Calls are numbered by content (global value numbering): two calls of one function on operands of equal numbers have one
number, whichever recording they stand in. What is computed from constants alone counts by its value, so that a table
that was computed in one run and found in a cache by the next is the same operand.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, fx, nn

from torch_dag_core.tracing.names import RANDOM, canonical
from torch_dag_core.tracing.recorder import Recorder

_OVERWRITING = frozenset({"copy", "fill", "zero"})
"""Functions whose result has nothing of their first operand but shape and type."""
_RANDOM = frozenset(map(canonical, RANDOM))


class Signatures:
    """Numbers the calls of several recordings of one model in one mode.

    Args:
        model: The model, before its first run.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        self._numbers: dict[Any, int] = {}
        self._of: dict[fx.Node, int] = {}
        self._changing: set[fx.Node] = set()
        self._varying: set[fx.Node] = set()

    def of(self, recorder: Recorder, template: Any) -> tuple[Any, ...]:
        """Return what compares equal for recordings of equal effect: results, new values of buffers, other changes.

        Args:
            recorder: The recording; recordings whose state it was started from have to come before it.
            template: The structure of what the model returned, with numbers and such in it.
        """
        seen: dict[Any, int] = {}
        for node in recorder.graph.nodes:
            if node.op != "output":
                self._classify(node, recorder)
                self._of[node] = self._number(node, seen)
        # A buffer that the first run made is read by the next as another operand, or else it does not matter.
        written = [node for node in recorder.graph.nodes if node.meta.get("writes") in self._buffers]
        changed = [self._of[node] for node in recorder.graph.nodes if "changes state" in node.meta]
        outputs: Any = recorder.graph.output_node().args[0]
        values = [(node.meta["writes"], self._of[node]) for node in written]
        return (template, [self._of[node] for node in outputs], values, changed)

    def _classify(self, node: fx.Node, recorder: Recorder) -> None:
        """Note whether a call depends on a buffer that the model overwrites, and whether its result varies."""
        inputs = node.all_input_nodes
        is_overwritten = node.meta.get("held") == "buffer" and node.target in recorder.state
        if is_overwritten or not self._changing.isdisjoint(inputs):
            self._changing.add(node)
        if self._varies(node) or not self._varying.isdisjoint(inputs):
            self._varying.add(node)

    def _varies(self, node: fx.Node) -> bool:
        """Tell whether a call gives another result at each run."""
        if node.op == "call_module":
            return self._model.get_submodule(str(node.target)).training
        return node.op == "placeholder" or node.meta["function"] in _RANDOM

    def _number(self, node: fx.Node, seen: dict[Any, int]) -> int:
        carried = node.meta.get("carried")
        if carried is not None and not carried.meta["constant"] and carried not in self._varying:
            return self._of[carried]  # a run before this one computed it of parameters; this one would do it again
        content = self._content(node)
        if node.op == "call_module" or node.meta["function"] in _RANDOM:
            count = seen[content] = seen.get(content, 0) + 1
            content = (*content, count)
        return self._numbers.setdefault(content, len(self._numbers))

    def _content(self, node: fx.Node) -> tuple[Any, ...]:
        meta = node.meta
        if node.op == "placeholder":
            return ("input", node.target)
        if "carried" in meta and not meta["constant"]:
            return ("carried", node)
        if meta.get("held") == "parameter" or (node.op == "get_attr" and meta["held"] == "buffer"):
            return ("held", node.target if meta["held"] == "buffer" else id(meta["owner"]))
        if meta["constant"] and "value" in meta and node not in self._changing:
            return ("value", *_digest(meta["value"]))
        args = list(node.args)
        if meta["function"] in _OVERWRITING and args:
            args[0] = (meta["shape"], meta["dtype"])
        target = node.target if node.op == "call_module" else meta["function"]
        return (node.op, target, self._frozen(args), self._frozen(dict(node.kwargs)))

    def _frozen(self, value: Any) -> Any:
        """Return a hashable value that is equal for equal arguments."""
        if isinstance(value, fx.Node):
            return ("number", self._of[value])
        if isinstance(value, (tuple, list)):
            return (type(value).__name__, *map(self._frozen, value))
        if isinstance(value, dict):
            return ("dict", *((key, self._frozen(item)) for key, item in sorted(value.items())))
        if isinstance(value, slice):
            return ("slice", *map(self._frozen, (value.start, value.stop, value.step)))
        return (type(value).__name__, repr(value))


def _digest(value: Tensor) -> tuple[Any, ...]:
    """Return shape, type and a digest of the elements; the tensor itself where its elements cannot be read."""
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        return (id(value),)
    flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).cpu().view(torch.uint8)
    return (tuple(value.shape), value.dtype, hashlib.blake2b(flat.numpy().tobytes()).digest())
