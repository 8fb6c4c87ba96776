"""The function mode that intercepts every torch call of a running model and has it recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily

from torch_dag_core.errors import TraceError
from torch_dag_core.graph.op import Op
from torch_dag_core.tracing.autocast_functions import NEVER_CAST
from torch_dag_core.tracing.calls import Calls, Invocation
from torch_dag_core.tracing.casts import RecordedCasts, UnseenError
from torch_dag_core.tracing.execution import Function, run, run_module, run_on_zeros, writes
from torch_dag_core.tracing.gradient_flags import GRADIENT_NAMES, GradientFlags
from torch_dag_core.tracing.held import HeldTensors
from torch_dag_core.tracing.idle_casts import is_kept
from torch_dag_core.tracing.location import USE_ATOMIC, Location
from torch_dag_core.tracing.names import ESCAPES, RANDOM, canonical, is_property, renamed, sizing_operands, spelling
from torch_dag_core.tracing.pause import Pause
from torch_dag_core.tracing.python_functions import COMPOSITE, is_written_in_python, opened
from torch_dag_core.tracing.randomness import Randomness
from torch_dag_core.tracing.reachable import is_library
from torch_dag_core.tracing.recording import Escape, FunctionCall, Input, Live, ModuleCall, OpCall, Recording
from torch_dag_core.tracing.run_settings import RunSettings
from torch_dag_core.tracing.settled import plain, settled, without_arrays
from torch_dag_core.tracing.size_log import SizeLog
from torch_dag_core.tracing.size_reads import SIZE_NAMES, SizeReads
from torch_dag_core.tracing.sizes import Traced
from torch_dag_core.tracing.tape import Tape
from torch_dag_core.tracing.tensors import tensors_in
from torch_dag_core.tracing.tracker import Tracker, outcome_of
from torch_dag_core.tracing.writes import Writes

_PRETENDED = frozenset({"device", "is_cuda", "is_meta", "is_cpu", "is_mps", "is_xpu"})
_UNRECORDED = ("_set_grad", "_is_", "is_", "_has", "set ", "requires_grad", "_autocast")


class Recorder(TorchFunctionMode):
    """Intercepts calls, runs them without data, and writes them onto a tape.

    Args:
        modules: Every module of the model with its path, as they are before the run.
        device: The device that the model is told it runs on.
        hold: Called with every tensor from outside of the trace before it is written to.
        settings: What kind of run this is.
        earlier: The tracker of the run before, where this run starts from the Python state which that one left.
        flags: Answers whether tensors require gradients.

    Attributes:
        device: The device that the model is told it runs on.
        location: The modules that are running.
        pause: Inside it, calls run unrecorded.
        tracker: Which entry each tensor is the value of.
        sizes: What the model reads of sizes.
        randomness: What the model does to random state.
        autocast: Where the model switches autocast on or off.
    """

    def __init__(
        self, modules: Sequence[tuple[str, nn.Module]], device: torch.device, hold: Callable[[Tensor], None],
        settings: RunSettings, earlier: Tracker | None = None, flags: GradientFlags | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._most_calls = settings.most_calls
        self.device, self._modules, self._flags = device, modules, flags or GradientFlags()
        self.location, self.pause = Location(), Pause()
        self._held = HeldTensors(modules)
        self._tape = Tape()
        self.tracker = Tracker(self._tape, self._held, self.location, earlier)
        self._writes = Writes(self._tape, self.tracker, self._held, self.location, hold)
        self.randomness = Randomness(self.location, self.pause)
        self._calls = Calls(self._tape, self.tracker, self._writes, self.location, self.pause, self.randomness)
        self.autocast = self._calls.blocks
        self._casts = RecordedCasts(self.autocast, self._held, device, self.pause)
        self._size_log = SizeLog(self.pause, settings.disguise)
        self.sizes = SizeReads(self.tracker, self._size_log)

    # Entry points ----------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Function, types: object, args: tuple[Live, ...] = (), kwargs: dict[str, Live] | None = None
    ) -> object:
        """Run the call, and record it unless the trace is paused, as it is inside a leaf."""
        del types
        kwargs = renamed(kwargs or {})
        name = spelling(func)
        if self.pause:
            return run(func, name, args, kwargs)
        if name in _PRETENDED:
            return self._pretend(name)
        special = _SPECIAL.get(name)
        if name in GRADIENT_NAMES and not is_library(sys._getframe(1).f_globals.get("__name__")):
            special = Recorder._gradient_flag
        if special is not None:
            return special(self, func, *args)
        if is_property(func) or name in SIZE_NAMES:
            return self._attribute(func, name, args, kwargs)
        if name.startswith(_UNRECORDED) and name not in ESCAPES:
            return func(*args, **kwargs)
        return self._take(func, name, settled(args), settled(kwargs))

    def inputs(self, names: Sequence[str], values: Sequence[Tensor]) -> None:
        """Record the input tensors."""
        for name, value in zip(names, values, strict=True):
            entry = Input(name=name, origin=self.location.origin(), outcome=outcome_of(value, is_constant=False))
            self.tracker.own(value, self._tape.append(entry))

    def call_leaf(self, path: str, module: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        """Run a leaf module as one recorded call."""
        recorded, keywords = settled(args), settled(kwargs)
        name = path.rpartition(".")[2] or type(module).__name__.lower()
        entry, state = ModuleCall(name=name, origin=self.location.origin(), path=path), tuple(module.buffers())
        execute = partial(self._watched, self._run_leaf, module, plain(args), plain(kwargs))
        with _pop_mode_temporarily():
            return self._calls.make(
                Invocation(entry, recorded, keywords, execute, is_random=True, may_write=True, state=state)
            )

    def _run_leaf(self, module: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        """Call a leaf for shapes and types; one that switches autocast on has these from zeros on its own device."""
        self.autocast.switched_on.clear()
        try:
            result = run_module(module, args, kwargs)
        except RuntimeError:  # operands of different types, which autocast would have cast
            if self.device.type not in self.autocast.switched_on:
                raise
        is_cast = self.device.type in self.autocast.switched_on
        return run_on_zeros(module, args, kwargs, self.device) if is_cast else result

    def call_op(self, module: Op, args: tuple[Live, ...]) -> Live:
        """Run an op that is no part of the model, but of a function that stands in for one, as one call."""
        constants = settled(module.config())
        execute = partial(self._watched, module, *args)
        entry = OpCall(name=type(module).__name__, origin=self.location.origin(), op=type(module))
        with _pop_mode_temporarily():
            return self._calls.make(Invocation(entry, args, constants, execute, is_random=True, may_write=False))

    def reassigned(self, name: str, before: Tensor, tensor: Tensor) -> None:
        """Record that the buffer ``name`` is another tensor now; one of another size is kept by the model alone."""
        if tensor.shape != before.shape:
            self.attribute_changed(name, before, tensor)
            return
        source = self.tracker.ref(tensor)
        outcome = outcome_of(tensor, self._tape[source].outcome.is_constant)
        origin = self.location.origin()
        copy = FunctionCall(name="clone", origin=origin, outcome=outcome, function="clone", args=(source,))
        self._tape.mark_as_write(self._tape.append(copy), name)

    def attribute_changed(self, path: str, before: Tensor, after: object) -> None:
        """Refuse a tensor attribute, not a buffer, that the model read and then replaced by another value."""
        if not self.tracker.has_adopted(before):
            return
        if isinstance(after, Tensor) and self.tracker.knows(after):
            value, old = (self._tape[self.tracker.ref(tensor)] for tensor in (after, before))
            if is_kept(value, old, self._tape.entries):
                return
        message = f"the model keeps a tensor in {path!r} from one call to the next; make it a buffer, or {USE_ATOMIC}"
        raise TraceError(message)

    def replaced_tensors(self, model: nn.Module) -> Iterator[tuple[str, Tensor, object]]:
        """Iterate over (path, old value, new value) of buffers and attributes that are other objects now."""
        return self._held.replaced(model)

    def is_altered(self, module: nn.Module) -> bool:
        """Tell whether a module has other tensors than before the trace."""
        return self._held.is_altered(module, self.tracker.knows)

    def is_returned_tensor(self, value: object) -> bool:
        """Tell whether a part of what the model returned is a tensor; numbers computed from sizes are noted."""
        if isinstance(value, Traced):
            self._size_log.returned(value.expression)
        return isinstance(value, Tensor)

    def close(self, outputs: list[Tensor], template: object) -> Recording:
        """Return the recording, given the tensors that the model returned and their structure."""
        self.randomness.check()
        refs = [self.tracker.ref(tensor) for tensor in outputs]
        self._writes.settle()
        return self._tape.close(refs, template, self._size_log.close(), self.autocast.conditions)

    @property
    def overwritten(self) -> list[Tensor]:
        """Tensors that no recorded call made, and that the model wrote to without holding them as buffers."""
        return self._writes.overwritten

    # Calls -----------------------------------------------------------------------------------------------------

    def _take(self, func: Function, name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        if name in RANDOM:
            kwargs = self.randomness.own_generator_removed(name, args, kwargs)
        if name in ESCAPES:
            self._refuse_escape(name, tensors_in(args, kwargs))
            value: Live = func(*plain(args), **plain(kwargs))
            return value
        if not all(self._is_constant(tensor) for tensor in sizing_operands(name, args, kwargs)):
            self.location.fail(f"the size of what {name.strip('_')} returns depends on the data")
        if name == "__setitem__":
            self._calls.set_item(without_arrays(args))
            return None
        if name in COMPOSITE:
            with self:
                return cast("Live", opened(func)(*args, **kwargs))
        if isinstance(kwargs.get("out"), Tensor):
            return self._into(kwargs.pop("out"), func, name, args, kwargs)
        if self.autocasts and canonical(name) not in NEVER_CAST:
            try:
                args, kwargs = self._casts.before(func, (args, kwargs), self._recorded_cast)
            except UnseenError as error:
                return self._in_steps(func, name, args, kwargs, error)
        return self._record(func, name, args, kwargs)

    def _in_steps(
        self, func: Function, name: str, args: tuple[Live, ...], kwargs: dict[str, Live], error: UnseenError
    ) -> Live:  # fmt: skip
        """Record a call that autocast changes between its steps as these steps, where they are written in Python."""
        if not is_written_in_python(func):
            self.location.fail(f"what autocast does to {name} inside of the model has no form in a graph: {error}")
        with self:
            return cast("Live", opened(func)(*args, **kwargs))

    def _into(self, out: Live, func: Function, name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        """Record ``func(..., out=out)`` as a call and a copy."""
        result = self._take(func, name, args, kwargs)
        if cast("Tensor", result).shape != cast("Tensor", out).shape:
            self.location.fail(f"{name} is given an out= of another shape than its result")
        return self._take(Tensor.copy_, "copy_", (out, result), {})

    def _record(self, func: Function, name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        if self._most_calls is not None and len(self._tape.entries) > self._most_calls:
            self.location.fail(f"the number of calls grows with the input sizes, beyond {self._most_calls}")
        execute = partial(run, func, name, plain(args), plain(kwargs))
        is_method = type(func).__name__ in ("method_descriptor", "wrapper_descriptor")
        identity: Hashable = name if is_property(func) or is_method else func
        recorded, kwargs = without_arrays(args[:1] if is_property(func) else args), without_arrays(kwargs)
        if name == "where" and func is not torch.where and len(args) > 1:
            identity, recorded = torch.where, (recorded[1], recorded[0], *recorded[2:])
        entry = FunctionCall(name=canonical(name), origin=self.location.origin(), function=identity)
        return self._calls.make(
            Invocation(entry, recorded, kwargs, execute, is_random=name in RANDOM, may_write=writes(name))
        )

    @property
    def autocasts(self) -> bool:
        """Whether the running code has switched autocast on for the device of the model."""
        return bool(self.autocast) and self.autocast.dtype(self.device.type) is not None

    def _recorded_cast(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return cast("Tensor", self._record(Tensor.to, "to", (tensor, dtype), {}))

    def _watched(self, function: Callable[..., Live], *args: Live | nn.Module) -> Live:
        """Call a function under the mode again, for what `run` does for the calls inside."""
        with self:
            return function(*args)

    # Attributes, sizes and Python values -----------------------------------------------------------------------

    def _pretend(self, name: str) -> Live:
        """Answer questions about the device as the model's own tensors would."""
        return self.device if name == "device" else self.device.type == name.removeprefix("is_")

    def _attribute(self, func: Function, name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        value: Live = func(*args, **kwargs)
        tensor = args[0]
        if isinstance(value, Tensor):
            return value if name == "grad" else self._record(func, name, args, kwargs)
        if name not in SIZE_NAMES or not isinstance(tensor, Tensor) or not self.tracker.knows(tensor):
            return value
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        return self.sizes.read(name, tensor, cast("int | None", dim))

    def _gradient_flag(self, func: Function, tensor: Tensor) -> object:
        value: object = func(tensor)
        if not self.tracker.knows(tensor):
            return value
        return self._flags.answer(
            spelling(func), value, self.tracker.tracked(tensor).ref, self._tape.entries, self._learns
        )

    def _learns(self, path: str) -> bool:
        module = next((module for name, module in self._modules if name == path), None)
        return module is not None and any(parameter.requires_grad for parameter in module.parameters())

    def _length(self, func: Function, tensor: Tensor) -> int:
        return self.sizes.plain_length(func, tensor)

    def _rows(self, _: Function, tensor: Tensor) -> Iterator[Live]:
        rows = self._take(Tensor.unbind, "unbind", (tensor, 0), {})
        return iter(cast("tuple[Tensor, ...]", rows))

    def _replace_data(self, func: Function, tensor: Tensor, value: Live) -> None:
        """Follow ``tensor.data = value`` where the tensor is a constant that no module holds."""
        held = self._held.find(tensor) is not None or self._held.attribute_path(tensor) is not None
        if held or not isinstance(value, Tensor) or value.device != tensor.device or not self._is_constant(tensor):
            self.location.fail("the model assigns to the data of a tensor that is no constant of its own")
        source = cast("Tensor", self._take(Tensor.detach, "detach", (value,), {}))
        with self.pause:
            func(tensor, source)
        tracked = self.tracker.tracked(source)
        self.tracker.own(tensor, tracked.ref, tracked.view)

    def _is_constant(self, tensor: Tensor) -> bool:
        return self._tape[self.tracker.ref(tensor)].outcome.is_constant

    def _refuse_escape(self, name: str, tensors: list[Tensor]) -> None:
        how = f"({name.strip('_')}), so its path depends on the data"
        what = f"the model takes a Python value out of a {{}} tensor {how}"
        for tensor in tensors:
            if not self._is_constant(tensor):
                self.location.fail(what.format("computed"))
            message = self.location.complaint(what.format("changing"))
            self._tape.escapes.append(Escape(self.tracker.ref(tensor).index, message))


_SPECIAL: dict[str, Callable[..., object]] = {
    "__len__": Recorder._length, "__iter__": Recorder._rows, "set data": Recorder._replace_data,
}  # fmt: skip
