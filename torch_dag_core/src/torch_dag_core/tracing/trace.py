"""One trace: the model runs for shapes alone, in one mode, and is left as it was."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn

from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.structure import pack, unpack
from torch_dag_core.tracing.autocast_functions import LEFT_ALONE, has_shortcut
from torch_dag_core.tracing.autocasting import watched_autocast
from torch_dag_core.tracing.capturing import capture_announced
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.following import following
from torch_dag_core.tracing.function_gradients import CheckedFunctions
from torch_dag_core.tracing.functions import recorded_functions
from torch_dag_core.tracing.location import USE_ATOMIC, failed_at
from torch_dag_core.tracing.module_calls import Original, handled
from torch_dag_core.tracing.namespaces import NO_SCOPES, Scopes
from torch_dag_core.tracing.outside_draws import OutsideDraws
from torch_dag_core.tracing.python_functions import scripted_as_python
from torch_dag_core.tracing.randomness import guarded_seeds
from torch_dag_core.tracing.recorder import Recorder
from torch_dag_core.tracing.recording import Live, Recording
from torch_dag_core.tracing.repeated_runs import RepeatedRuns
from torch_dag_core.tracing.restoring import in_mode, move_parameters_to_meta, restored
from torch_dag_core.tracing.run_settings import RunSettings
from torch_dag_core.tracing.snapshot import Snapshot
from torch_dag_core.tracing.submodules import named_submodules
from torch_dag_core.tracing.surroundings import IDENTITIES, watched_ids
from torch_dag_core.tracing.tracker import Tracker


@dataclass(frozen=True)
class Treatment:
    """How a submodule is traced: as one recorded call, through a function that stands in for it, or through it.

    Attributes:
        leaf: As one call.
        stand_in: The function that stands in for it.
        opaque: Whether nothing but a leaf will do.
    """

    leaf: bool = False
    stand_in: Callable[..., Live] | None = None
    opaque: bool = False


LEAF = Treatment(leaf=True)
OPAQUE = Treatment(leaf=True, opaque=True)
THROUGH = Treatment()
Treatments: TypeAlias = Callable[[nn.Module], Treatment]


def trace(  # noqa: PLR0913
    model: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live], names: list[str], treatment: Treatments,
    settings: RunSettings, *, scopes: Scopes = NO_SCOPES, snapshot: Snapshot | None = None,
    functions: CheckedFunctions | None = None,
) -> Recording:  # fmt: skip
    """Run ``model`` and record every call; run it again where it changed Python state, see `RepeatedRuns`.

    Args:
        model: Any module that runs; it is left as it was, and so is what its code can reach.
        args: Positional arguments, tensors inside are inputs.
        kwargs: Keyword arguments.
        names: Names of the input tensors, in the order in which they stand in ``args`` and ``kwargs``.
        treatment: Tells how each submodule is traced.
        settings: What kind of run this is.
        scopes: Namespaces with names of their own for builtins that have to follow sizes.
        snapshot: One of the model as it is, which saves the time to take another.
        functions: What earlier runs of the model found out of its custom autograd functions.

    Raises:
        TraceError: the model failed, cannot be traced, or computes something else at its next call; names the line.
    """
    device, checked = _device_of(model), functions or CheckedFunctions()
    args, kwargs, tensors = _without_data(args, kwargs)
    with (
        restored(model, snapshot) as before, in_mode(model, training=settings.training) as modules,
        torch.enable_grad(), _no_compiling(),
    ):  # fmt: skip
        draws, paths = _draws(scopes, before), {id(module): path for path, module in modules}
        move_parameters_to_meta((module for _, module in modules), before.blanks)

        def start(earlier: Tracker | None) -> Recorder:
            found = modules if earlier is None else named_submodules(model)
            return Recorder(found, device, before.hold, settings, earlier, draws.flags)

        def run(recorder: Recorder) -> Recording:
            recorder.inputs(names, tensors)
            with _recorded_modules(paths, recorder, treatment), _recorded(recorder, checked, scopes):
                return _run(model, recorder, args, kwargs)

        return RepeatedRuns(start, run, before, modules, draws).record(repeats=settings.repeats)


def _draws(scopes: Scopes, snapshot: Snapshot) -> OutsideDraws:
    """Return the watch on what the model asks of its surroundings."""
    places, identities = snapshot.places_of(watched_ids()), snapshot.scopes_naming(IDENTITIES)
    return OutsideDraws(scopes.watched, places, identities, snapshot.has_seen)


def _device_of(model: nn.Module) -> torch.device:
    return next((t.device for t in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _without_data(
    args: tuple[Live, ...], kwargs: dict[str, Live]
) -> tuple[tuple[Live, ...], dict[str, Live], list[Tensor]]:
    """Return arguments with tensors that have no data, and these tensors in order."""
    tensors: list[Tensor] = []
    template = pack((args, kwargs), lambda v: isinstance(v, Tensor), tensors)
    tensors = [tensor.detach().to(META) for tensor in tensors]
    args, kwargs = unpack(template, tensors)
    return args, kwargs, tensors


@contextlib.contextmanager
def _no_compiling() -> Iterator[None]:
    """Run compiled functions as they are written.

    This imports the compiler, which must not happen inside a run: the classes of autograd functions that it defines
    would keep the ``apply`` of the trace, and with it what the trace recorded.
    """
    with torch.compiler.set_stance("force_eager"):
        yield


@contextlib.contextmanager
def _recorded(recorder: Recorder, checked: CheckedFunctions, scopes: Scopes) -> Iterator[None]:
    """Show the recorder what the model does outside of its modules, and say where it fails."""
    with (
        recorded_functions(recorder, checked), following(recorder.sizes.length, scopes),
        guarded_seeds(recorder.randomness), scripted_as_python(recorder), capture_announced(),
        watched_autocast(recorder), _explained(recorder),
    ):  # fmt: skip
        yield


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
    with recorder:
        result = model(*args, **kwargs)
    for path, old, new in list(recorder.replaced_tensors(model)):
        owner, _, name = path.rpartition(".")
        if name in model.get_submodule(owner)._buffers and isinstance(new, Tensor):
            recorder.reassigned(path, old, new)
        else:
            recorder.attribute_changed(path, old, new)
    leaves: list[Tensor] = []
    template = pack(result, recorder.is_returned_tensor, leaves)
    return recorder.close(leaves, template)


@contextlib.contextmanager
def _recorded_modules(paths: Mapping[int, str], recorder: Recorder, treatment: Treatments) -> Iterator[None]:
    """Route this thread's calls of modules, given by id, through the recorder."""
    owner = threading.get_ident()

    def call(original: Original, module: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
        path, is_paused = paths.get(id(module)), recorder.pause or threading.get_ident() != owner
        if is_paused or path is None:
            if isinstance(module, Op) and not is_paused and not recorder.autocasts:
                return recorder.call_op(module, args)
            unrecorded: Live = original(module, *args, **kwargs)
            return unrecorded
        how = treatment(module)
        if how is not THROUGH and (module._forward_hooks or module._forward_pre_hooks or recorder.is_altered(module)):
            how = THROUGH
        if recorder.autocasts:
            how = _in_autocast(how, module, path, recorder)
        inside = how.stand_in is not None and recorder.location.modules[-1:] == [path]
        if how.leaf or inside:
            return recorder.call_leaf(path, module, args, kwargs)
        depth = len(recorder.location.modules)
        recorder.location.modules.append(path)
        result: Live = (how.stand_in or original)(module, *args, **kwargs)
        del recorder.location.modules[depth:]  # not where the call failed: what stays names the module in the error
        return result

    with handled(call):
        yield


def _in_autocast(how: Treatment, module: nn.Module, path: str, recorder: Recorder) -> Treatment:
    """Return how to trace a module inside a block of autocast, where each call of functions has casts of its own."""
    if how.opaque:
        what = f"the atomic module {path!r} is called inside of a block that switches autocast on"
        recorder.location.fail(f"{what}, which no vertex is")
    if has_shortcut(module, recorder.device):
        what = f"torch's shortcut for {type(module).__name__} ({path!r}) gives another type under torch.no_grad()"
        recorder.location.fail(f"{what} where autocast is on")
    return how if type(module) in LEFT_ALONE else THROUGH
