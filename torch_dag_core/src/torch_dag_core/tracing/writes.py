"""In-place calls made functional: what a write makes of the tensor that it goes to, and of all that aliases it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torch_dag_core.tracing.aliasing import RESHAPE, SET_INDEX, scatter_of
from torch_dag_core.tracing.held import HeldTensors
from torch_dag_core.tracing.location import Location
from torch_dag_core.tracing.recording import Argument, FunctionCall, Live, Outcome, Ref
from torch_dag_core.tracing.settled import sizes_of
from torch_dag_core.tracing.tape import Tape
from torch_dag_core.tracing.tensors import storage_of, tensors_in, with_refs
from torch_dag_core.tracing.tracker import Tracker, View, outcome_of

_STATISTICS = frozenset({"batch_norm", "instance_norm"})
"""Functions that update buffers which they do not return."""
_WITHOUT_GRADIENT = frozenset({"data", "detach"})


class Writes:
    """Records what in-place calls did to memory.

    Args:
        hold: Called with every tensor from outside of the trace before it is written to.

    Attributes:
        overwritten: Tensors that no recorded call made, and that the model wrote to without holding them as buffers.
    """

    def __init__(
        self, tape: Tape, tracker: Tracker, held: HeldTensors, location: Location, hold: Callable[[Tensor], None]
    ) -> None:
        self._tape, self._tracker, self._held, self._location = tape, tracker, held, location
        self._hold = hold
        self.overwritten: list[Tensor] = []

    def prepare(self, tensors: list[Tensor]) -> None:
        """Keep what these tensors are, because a call may be about to write to them."""
        for tensor in tensors:
            if not tensor.is_meta:
                if self._tracker.is_adopted_memory(tensor):
                    self._hold(tensor)
                self._tape.keep_constants(tensor)

    def settle(self) -> None:
        """Give the constants that live in overwritten tensors memory of their own, before those are put back."""
        for tensor in self.overwritten:
            self._tape.keep_constants(tensor)

    def bases(self, tensor: Tensor) -> list[Ref]:
        """Return what ``tensor`` is a view of, and so on, innermost first, as it is before a write."""
        found = []
        view = self._tracker.tracked(tensor).view
        while view is not None:
            found.append(self._tracker.ref(view.base))
            view = self._tracker.tracked(view.base).view
        return found

    def set_item(self, target: Tensor, items: Live, value: Live, refs: dict[int, Ref], bases: list[Ref]) -> None:
        """Record ``target[items] = value``, which was made; ``refs`` and ``bases`` are from before."""
        items = items if isinstance(items, tuple) else (items,)
        outcome = outcome_of(target, self._tape.all_constant(list(refs.values())))
        self._rebind(target, self._call(SET_INDEX, with_refs((target, items, value), refs), outcome), bases)

    def follow(self, written: list[Tensor], ref: Ref, name: str, result: Live, bases: dict[int, list[Ref]]) -> None:
        """Follow the writes of one call: what it returned is the new value of the tensor that it returned.

        Args:
            written: The operands that were written.
            ref: The call's entry.
            name: Canonical name of the function.
            result: What the call returned.
            bases: For each operand, by its id, what `bases` gave before the call.
        """
        for storage, tensor in {storage_of(t): t for t in reversed(written)}.items():
            if isinstance(result, Tensor) and storage_of(result) == storage and id(result) in bases:
                self._rebind(result, ref, bases[id(result)])
            elif name not in _STATISTICS or self._held.find(tensor) is None:
                self._location.fail(f"{name} writes into an argument that it does not return")

    def _rebind(self, tensor: Tensor, ref: Ref, bases: list[Ref]) -> None:
        """Make an entry the value of ``tensor``, and put it back into everything that the tensor is a view of."""
        version = self._tracker.written(tensor)
        tracked = self._tracker.tracked(tensor)
        before = bases[-1] if bases else tracked.ref
        ref = self._as_type(ref, tensor)
        tracked.ref, tracked.version = ref, version
        views = []
        for base in bases:
            view = tracked.view
            assert view is not None
            views.append(view.name)
            ref = self._scattered(view, tensor, base, ref)
            tensor, tracked = view.base, self._tracker.tracked(view.base)
            tracked.ref, tracked.version = ref, version
        self._note_state(tensor, ref, views, before)

    def _as_type(self, ref: Ref, tensor: Tensor) -> Ref:
        """Return the value cast to the type of the tensor that is written, which keeps its own."""
        outcome = self._tape[ref].outcome
        if outcome.dtype == tensor.dtype:
            return ref
        return self._call("to", (ref, tensor.dtype), outcome_of(tensor, outcome.is_constant))

    def _scattered(self, view: View, tensor: Tensor, base: Ref, ref: Ref) -> Ref:
        """Record the base of a view, with the view's new value ``ref`` in its place."""
        scatter = scatter_of(view, tensor)
        if scatter is None:
            self._location.fail(f"an in-place write goes through {view.name}, a view that cannot be written back")
        if scatter.name != SET_INDEX:
            outcome = outcome_of(view.base, self._tape.all_constant([ref]))
            shape_or_order = sizes_of(base.index, view.base.shape) if scatter.name == RESHAPE else scatter.argument
            return self._call(scatter.name, (ref, with_refs(shape_or_order, {})), outcome)
        refs = self._tracker.refs(tensors_in(scatter.argument))
        args = base, with_refs(scatter.argument, refs), ref
        return self._call(SET_INDEX, args, outcome_of(view.base, self._tape.all_constant([base, *refs.values(), ref])))

    def _call(self, name: str, args: tuple[Argument, ...], outcome: Outcome) -> Ref:
        """Append a call that the model did not make itself.

        ``set_index`` returns a copy of the first argument, of which the elements at the second are the third.
        """
        origin = self._location.origin()
        return self._tape.append(FunctionCall(name=name, origin=origin, outcome=outcome, function=name, args=args))

    def _note_state(self, tensor: Tensor, ref: Ref, views: list[str], before: Ref) -> None:
        """Note a write that reached the model's own memory; refuse one that gradients would not follow."""
        held = self._held.find(tensor)
        attribute = self._held.attribute_path(tensor)
        if held is not None and held.is_parameter:
            self._location.fail(f"the model overwrites its parameter {held.path!r} in forward")
        if held is not None:
            self._tape.mark_as_write(ref, held.path)
        elif attribute is not None:
            self._location.fail(f"the model overwrites the tensor {attribute!r}, which is not a buffer; make it one")
        elif self._is_hidden(views, before) and not self._tape[before].outcome.is_constant:
            self._location.fail(
                "the model writes into a tensor behind the back of autograd (through data, detach or no_grad)"
            )
        elif self._tracker.is_adopted_memory(tensor):
            self.overwritten.append(tensor)

    def _is_hidden(self, views: list[str], before: Ref) -> bool:
        """Tell whether autograd did not see a write, so that gradients would flow through the old value."""
        if not self._tape[before].origin.gradient:
            return False
        return not torch.is_grad_enabled() or not _WITHOUT_GRADIENT.isdisjoint(views)
