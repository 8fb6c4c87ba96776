"""One trace: the model runs once, for shapes alone, in one mode, and is left as it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.structure import pack, unpack
from torch_dag_core.tracing.capturing import capture_announced
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.functions import recorded_functions
from torch_dag_core.tracing.location import USE_ATOMIC, failed_at
from torch_dag_core.tracing.python_functions import scripted_as_python
from torch_dag_core.tracing.randomness import guarded_seeds
from torch_dag_core.tracing.recorder import Recorder
from torch_dag_core.tracing.recording import Live, Recording
from torch_dag_core.tracing.restoring import changed_attributes, in_mode, move_parameters_to_meta, restored, tensors_of


@dataclass(frozen=True)
class Treatment:
    """How a submodule is traced: as one recorded call, through a function that stands in for it, or through it."""

    leaf: bool = False
    stand_in: Callable[..., Live] | None = None


LEAF = Treatment(leaf=True)
THROUGH = Treatment()
Treatments: TypeAlias = Callable[[nn.Module], Treatment]


def trace(
    model: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live], names: list[str], treatment: Treatments, *,
    training: bool,
) -> Recording:  # fmt: skip
    """Run ``model`` once and record every call.

    Args:
        model: Any module that runs; parameters, buffers, modes and the random state are restored afterwards.
        args: Positional arguments, tensors inside are inputs.
        kwargs: Keyword arguments.
        names: Names of the input tensors, in the order in which they stand in ``args`` and ``kwargs``.
        treatment: Tells how each submodule is traced.
        training: Whether the model runs in training mode.

    Raises:
        TraceError: the model failed, or cannot be traced; names module, file and line.
    """
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    fresh: list[Tensor] = []
    template = pack((args, kwargs), lambda v: isinstance(v, Tensor), fresh)
    tensors = [tensor.detach().to(META) for tensor in fresh]
    args, kwargs = unpack(template, tensors)
    with restored(model), in_mode(model, training=training), torch.enable_grad(), contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and asking would import the compiler
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        move_parameters_to_meta(model)
        recorder = Recorder(model, device)
        stack.callback(recorder.tracker.forget)
        stack.enter_context(_recorded_modules(model, recorder, treatment))
        stack.enter_context(recorded_functions(recorder))
        stack.enter_context(guarded_seeds(recorder.randomness))
        stack.enter_context(scripted_as_python(recorder))
        stack.enter_context(capture_announced())
        for name, tensor in zip(names, tensors, strict=True):
            recorder.input(name, tensor)
        with _explained(recorder):
            return _run(model, recorder, args, kwargs)


@contextlib.contextmanager
def _explained(recorder: Recorder) -> Iterator[None]:
    """Say where in the model an error was raised."""
    try:
        yield
    except TorchDagError:
        raise
    except Exception as error:
        place = f"{recorder.location}, at {failed_at(error.__traceback__)}"
        # A trace runs on the meta device, and kernels that look at data say that they cannot.
        hint = f"; {USE_ATOMIC} if it needs data" if META.type in str(error).lower() else ""
        message = f"the model failed while it was traced, in {place}: {type(error).__name__}: {error}{hint}"
        raise TraceError(message) from error


def _run(model: nn.Module, recorder: Recorder, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Recording:
    """Run the model under the recorder."""
    before = tensors_of(model)
    with recorder:
        result = model(*args, **kwargs)
    for path, old, new in changed_attributes(model, before):
        owner, _, name = path.rpartition(".")
        if name in model.get_submodule(owner)._buffers and isinstance(new, Tensor):
            recorder.reassigned(path, old, new)
        else:
            recorder.attribute_changed(path, old)
    leaves: list[Tensor] = []
    template = pack(result, lambda v: isinstance(v, Tensor), leaves)
    return recorder.close(leaves, template)


@contextlib.contextmanager
def _recorded_modules(model: nn.Module, recorder: Recorder, treatment: Treatments) -> Iterator[None]:
    """Route calls of submodules through the recorder; a class-level patch, undone on exit."""
    paths: dict[int, str] = {}
    for path, module in model.named_modules():
        paths.setdefault(id(module), path)
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Live, **kwargs: Live) -> Live:
        path = paths.get(id(module))
        if recorder.pause or path is None:
            if isinstance(module, Op) and not recorder.pause:
                return recorder.call_op(module, args)
            unrecorded: Live = original(module, *args, **kwargs)
            return unrecorded
        how = treatment(module)
        if how is not THROUGH and (module._forward_hooks or module._forward_pre_hooks or recorder.is_altered(module)):
            how = THROUGH
        inside = how.stand_in is not None and recorder.location.modules[-1:] == [path]
        if how.leaf or inside:
            return recorder.call_leaf(path, module, args, kwargs)
        depth = len(recorder.location.modules)
        recorder.location.modules.append(path)
        result: Live = (how.stand_in or original)(module, *args, **kwargs)
        del recorder.location.modules[depth:]  # not where the call failed: what stays names the module in the error
        return result

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
