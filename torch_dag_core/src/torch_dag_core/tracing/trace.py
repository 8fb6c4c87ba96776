"""One trace: the model runs once, for shapes alone, in one mode, and is left as it was."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.structure import pack, unpack
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.functions import recorded_functions
from torch_dag_core.tracing.ledger import USE_ATOMIC, origin
from torch_dag_core.tracing.memory import Recording
from torch_dag_core.tracing.recorder import Recorder
from torch_dag_core.tracing.restoring import changed_attributes, in_mode, move_parameters_to_meta, restored, tensors_of
from torch_dag_core.tracing.signature import Signatures
from torch_dag_core.tracing.sizes import Guard


@dataclass(frozen=True)
class Treatment:
    """How a submodule is traced: as one recorded call, through a function that stands in for it, or through it."""

    leaf: bool = False
    stand_in: Callable[..., Any] | None = None


LEAF = Treatment(leaf=True)
THROUGH = Treatment()
Treatments = Callable[[nn.Module], Treatment]


@dataclass
class Trace:
    """What one run of a model left behind."""

    graph: fx.Graph
    guards: list[Guard]
    constants: dict[str, Tensor]
    state: dict[str, Tensor]
    output_template: Any
    size_lost: bool
    escapes: list[tuple[fx.Node, str]]
    nodes: list[fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = [node for node in self.graph.nodes if node.op != "output"]

    @property
    def writes(self) -> list[fx.Node]:
        """The nodes whose values the model's buffers take."""
        return [node for node in self.nodes if "writes" in node.meta]

    @property
    def changes(self) -> list[fx.Node]:
        """The calls that change the model's state by themselves."""
        return [node for node in self.nodes if "changes state" in node.meta]

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        """The nodes that the model returned, in slot order."""
        return self.graph.output_node().args[0]  # type: ignore[return-value]


def trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str], treatment: Treatments, *,
    training: bool,
) -> Trace:  # fmt: skip
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
    with restored(model) as snapshot, in_mode(model, training=training), torch.enable_grad():
        move_parameters_to_meta(model)
        snapshot.mark()

        def run(recorder: Recorder) -> Any:
            for name, tensor in zip(names, tensors, strict=True):
                recorder.input(name, tensor)
            with _recorded_modules(model, recorder, treatment), recorded_functions(recorder):
                return _run(model, recorder, args, kwargs)

        with _without_compiling():
            recording = Recording(lambda: Recorder(model, device), run, snapshot, Signatures(model))
            recorder, output = recording.record()
    return Trace(recorder.graph, recorder.guards, recorder.constants, recorder.state, output, recorder.size_lost,
                 recorder.escapes)  # fmt: skip


@contextlib.contextmanager
def _without_compiling() -> Iterator[None]:
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and asking would import the compiler
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _run(model: nn.Module, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the model under the recorder; returns the template of what it returned."""
    try:
        return _output(model, recorder, args, kwargs)
    except TorchDagError:
        raise
    except Exception as error:
        place = f"{recorder.where}, at {origin(error.__traceback__)}"
        # A trace runs on the meta device, and kernels that look at data say that they cannot.
        hint = f"; {USE_ATOMIC} if it needs data" if META.type in str(error).lower() else ""
        message = f"the model failed while it was traced, in {place}: {type(error).__name__}: {error}{hint}"
        raise TraceError(message) from error


def _output(model: nn.Module, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
    output = pack(result, lambda v: isinstance(v, Tensor), leaves)
    recorder.output(output, leaves)
    return output


@contextlib.contextmanager
def _recorded_modules(model: nn.Module, recorder: Recorder, treatment: Treatments) -> Iterator[None]:
    """Route this thread's calls of submodules through the recorder; a class-level patch, undone on exit."""
    owner = threading.get_ident()
    paths: dict[int, str] = {}
    for path, module in model.named_modules():
        paths.setdefault(id(module), path)
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != owner:
            return original(module, *args, **kwargs)
        path = paths.get(id(module))
        if recorder._paused or path is None:
            if isinstance(module, Op) and not recorder._paused:
                return recorder.call_op(module, args)
            return original(module, *args, **kwargs)
        how = treatment(module)
        if how is not THROUGH and (module._forward_hooks or module._forward_pre_hooks or recorder.is_altered(module)):
            how = THROUGH
        inside = how.stand_in is not None and recorder.modules[-1:] == [path]
        if how.leaf or inside:
            return recorder.call_leaf(path, module, args, kwargs)
        depth = len(recorder.modules)
        recorder.modules.append(path)
        result = (how.stand_in or original)(module, *args, **kwargs)
        del recorder.modules[depth:]  # not where the call failed: what stays names the module in the error
        return result

    try:
        nn.Module.__call__ = call  # type: ignore[method-assign]
        yield
    finally:
        if nn.Module.__call__ is call:  # an interrupt may delay this until the conversion has undone it
            nn.Module.__call__ = original  # type: ignore[method-assign]
