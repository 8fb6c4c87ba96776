"""Which entry of the tape each tensor has as its value, while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, is_grad_enabled, nn

from torch_dag_core.graph.nested import map_leaves
from torch_dag_core.tracing.held import HeldTensors
from torch_dag_core.tracing.location import Location
from torch_dag_core.tracing.recording import Argument, Entry, FunctionCall, Held, Live, Outcome, Pick, Ref
from torch_dag_core.tracing.tape import Tape
from torch_dag_core.tracing.tensors import storage_of

_KEY = "_torch_dag_record"


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """How a tensor was cut out of another one.

    Attributes:
        base: The other tensor.
        base_ref: The value that the base had then.
        ref: The entry of the call, or of the `Pick` among its results.
        name: Canonical name of the called function.
        args, keywords: The arguments of the call, without the base where it was one by position.
        item: The tensor's place among several results of the call; None where it is the only one.
    """

    base: Tensor
    base_ref: Ref
    ref: Ref
    name: str
    args: tuple[Live, ...]
    keywords: dict[str, Live]
    item: int | None


@dataclass(eq=False, slots=True)
class Tracked:
    """What the trace knows of one tensor object; current as long as its storage has the same version."""

    tracker: Tracker
    ref: Ref
    version: int
    view: View | None = None


class Tracker:
    """Follows tensors from the calls that make them to those that read them, through views and in-place writes.

    A tensor carries its `Tracked` as an attribute for the length of the trace. Every write, through whichever alias,
    gives the storage a new version; a view whose storage was written is then cut out of its base once more.

    Args:
        earlier: The tracker of the run before, where this run starts from the Python state which that one left.
    """

    def __init__(self, tape: Tape, held: HeldTensors, location: Location, earlier: Tracker | None = None) -> None:
        self._tape, self._held, self._location, self._earlier = tape, held, location, earlier
        self._adopted: dict[int, Tensor] = {}
        self._versions: dict[int, int] = {}

    def knows(self, tensor: Tensor) -> bool:
        """Tell whether this trace has an entry for the tensor."""
        tracked = tensor.__dict__.get(_KEY)
        return tracked is not None and tracked.tracker is self

    def has_adopted(self, tensor: Tensor) -> bool:
        """Tell whether a call read this very tensor, although no recorded call had made it."""
        return id(tensor) in self._adopted

    def is_adopted_memory(self, tensor: Tensor) -> bool:
        """Tell whether a tensor that the trace knows, or the one that it is a view of, `has_adopted`."""
        while (view := self.tracked(tensor).view) is not None:
            tensor = view.base
        return self.has_adopted(tensor)

    def computed(self, tensor: Tensor) -> Entry | None:
        """Return the entry of this run or an earlier one that a tensor is the value of; None where no call made it."""
        if not self.knows(tensor):
            return self._earlier.computed(tensor) if self._earlier is not None else None
        tracked = self.tracked(tensor)
        if tracked.version != self._versions.get(storage_of(tensor), 0):
            return None  # its base was written, and it was not read since
        entry = self._tape[tracked.ref]
        return entry.computed_by if isinstance(entry, Held) else entry

    def tracked(self, tensor: Tensor) -> Tracked:
        """Return what is known of a tensor that the trace knows."""
        found: Tracked = tensor.__dict__[_KEY]
        return found

    def own(self, tensor: Tensor, ref: Ref, view: View | None = None) -> None:
        """Make an entry the value of a tensor that is new to the trace."""
        tensor.__dict__[_KEY] = Tracked(self, ref, self._versions.get(storage_of(tensor), 0), view)

    def written(self, tensor: Tensor) -> int:
        """Return the new version of the tensor's storage, which was written."""
        storage = storage_of(tensor)
        version = self._versions[storage] = self._versions.get(storage, 0) + 1
        return version

    def ref(self, tensor: Tensor) -> Ref:
        """Return the entry whose value the tensor has now.

        Raises:
            TraceError: the trace cannot know how the tensor came about.
        """
        if not self.knows(tensor):
            self._adopt(tensor)
        tracked = self.tracked(tensor)
        version = self._versions.get(storage_of(tensor), 0)
        if tracked.version != version:
            if tracked.view is None:
                self._location.fail("a tensor was changed in place through an alias that the trace does not know")
            tracked.ref, tracked.version = self._cut_again(tracked.view, tensor), version
        if not self._tape[tracked.ref].origin.gradient and is_grad_enabled():
            tracked.ref = self._detached(tracked.ref, tensor)
        return tracked.ref

    def refs(self, tensors: list[Tensor]) -> dict[int, Ref]:
        """Return the entries of several tensors by the tensors' ids."""
        return {id(tensor): self.ref(tensor) for tensor in tensors}

    def forget(self) -> None:
        """Take what the trace noted off the tensors that outlive it."""
        for tensor in (*self._adopted.values(), *self._tape.constants()):
            tensor.__dict__.pop(_KEY, None)

    def _adopt(self, tensor: Tensor) -> None:
        """Record a tensor that no recorded call made: a parameter, a buffer, or one built elsewhere."""
        held = self._held.find(tensor)
        computed_by = self._earlier.computed(tensor) if held is None and self._earlier is not None else None
        if held is None and tensor.is_meta and computed_by is None:
            self._location.fail("a tensor comes from a call that the trace cannot see")
        path = held.path if held is not None else f"constant_{len(self._adopted)}"
        is_parameter = held.is_parameter if held is not None else isinstance(tensor, nn.Parameter)
        kind = "parameter" if is_parameter else "constant" if held is None else "buffer"
        self._adopted[id(tensor)] = tensor
        # A tensor from outside is the same with and without gradients: code in `no_grad` did not make it.
        origin = replace(self._location.origin(), gradient=True)
        is_constant = not is_parameter and (computed_by is None or computed_by.outcome.is_constant)
        self.own(tensor, self._tape.append(Held(
            name=path.rpartition(".")[2], origin=origin, outcome=outcome_of(tensor, is_constant), path=path, kind=kind,
            tensor=tensor, computed_by=computed_by,
        )))  # fmt: skip

    def _cut_again(self, view: View, tensor: Tensor) -> Ref:
        """Record the call that made a view once more, on what the base is now."""
        base = self.ref(view.base)
        return self._again(view.ref, lambda leaf: base if leaf == view.base_ref else leaf, tensor)

    def _again(self, ref: Ref, renew: Callable[[Argument], Argument], tensor: Tensor | None) -> Ref:
        """Append an entry once more with other operands; ``tensor`` is its value, None for several results."""
        entry = self._tape[ref]
        if isinstance(entry, Pick):
            args: tuple[Argument, ...] = (self._again(entry.source, renew, None),)
        else:
            args = map_leaves(entry.args, renew)
        keywords = map_leaves(dict(entry.keywords), renew)
        again = replace(entry, args=args, keywords=keywords, writes=None, changes_state=False)
        is_constant = self._tape.all_constant([Ref(operand) for operand in again.operands])
        outcome = replace(entry.outcome, is_constant=is_constant) if tensor is None else outcome_of(tensor, is_constant)
        return self._tape.append(replace(again, outcome=outcome))

    def _detached(self, ref: Ref, tensor: Tensor) -> Ref:
        """Return the value of an entry made inside ``no_grad`` as code outside sees it."""
        if self._tape[ref].outcome.is_constant or not (tensor.is_floating_point() or tensor.is_complex()):
            return ref
        outcome = outcome_of(tensor, is_constant=False)
        origin = self._location.origin()
        return self._tape.append(
            FunctionCall(name="detach", origin=origin, outcome=outcome, function="detach", args=(ref,))
        )


def outcome_of(tensor: Tensor, is_constant: bool) -> Outcome:  # noqa: FBT001
    """Return what is recorded of a tensor."""
    shape = tuple(map(int, tensor.shape))
    return Outcome(shape, tensor.dtype, is_constant=is_constant, tensor=tensor if is_constant else None)
