"""One trace: the model runs once, for shapes alone, in one mode, and is left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.structure import pack, unpack
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.recorder import Recorder
from torch_dag_core.tracing.sizes import Guard


@dataclass(frozen=True)
class Treatment:
    """How a submodule is traced: as one recorded call, through a function that stands in for it, or through it."""

    leaf: bool = False
    stand_in: Callable[..., Any] | None = None


LEAF = Treatment(leaf=True)
THROUGH = Treatment()


@dataclass
class Trace:
    """What one run of a model left behind."""

    graph: fx.Graph
    guards: list[Guard]
    constants: dict[str, Tensor]
    state: dict[str, Tensor]
    output_template: Any
    nodes: list[fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = [node for node in self.graph.nodes if node.op != "output"]

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        """The nodes that the model returned, in slot order."""
        return self.graph.output_node().args[0]  # type: ignore[return-value]


def trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str], treatment: Callable[[nn.Module], Treatment],
    *, training: bool,
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
    with _restored(model), _mode(model, training=training), torch.no_grad(), contextlib.ExitStack() as stack:
        _move_parameters_to_meta(model)
        recorder = Recorder(model, device)
        stack.enter_context(_recorded_modules(model, recorder, treatment))
        for name, tensor in zip(names, tensors, strict=True):
            recorder.input(name, tensor)
        try:
            with recorder:
                result = model(*args, **kwargs)
            leaves: list[Tensor] = []
            output = pack(result, lambda v: isinstance(v, Tensor), leaves)
            recorder.output(output, leaves)
        except TorchDagError:
            raise
        except Exception as error:
            where = f" in module {recorder.modules[-1]!r}" if recorder.modules and recorder.modules[-1] else ""
            message = f"the model failed while it was traced{where}: {type(error).__name__}: {error}"
            raise TraceError(message) from error
        finally:
            recorder.close()
    return Trace(recorder.graph, recorder.guards, recorder.constants, recorder.state, output)


def _move_parameters_to_meta(model: nn.Module) -> None:
    """Replace every parameter by one without data; tied ones stay tied. Undone by `_restored`."""
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                substitute = nn.Parameter(parameter.detach().to(META), requires_grad=parameter.requires_grad)
                module._parameters[name] = moved.setdefault(id(parameter), substitute)


@contextlib.contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Put buffers and the random state back to what they were."""
    held = [(module, dict(module._buffers), dict(module._parameters)) for module in model.modules()]
    copies = {id(buffer): (buffer, buffer.clone()) for buffer in model.buffers()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            yield
        finally:
            for module, buffers, parameters in held:
                module._buffers.clear()
                module._buffers.update(buffers)
                module._parameters.clear()
                module._parameters.update(parameters)
            with torch.no_grad():
                for buffer, copy in copies.values():
                    if buffer.shape == copy.shape:
                        buffer.copy_(copy)


@contextlib.contextmanager
def _recorded_modules(model: nn.Module, recorder: Recorder, treatment: Callable[[nn.Module], Treatment]) -> Iterator[None]:
    """Route calls of submodules through the recorder; a class-level patch, undone on exit."""
    paths: dict[int, str] = {}
    for path, module in model.named_modules():
        paths.setdefault(id(module), path)
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        path = paths.get(id(module))
        if recorder._paused or path is None:
            return original(module, *args, **kwargs)
        how = treatment(module) if path and not module._forward_hooks and not module._forward_pre_hooks else THROUGH
        if how.leaf:
            return recorder.call_leaf(path, module, args, kwargs)
        recorder.modules.append(path)
        result = (how.stand_in or original)(module, *args, **kwargs)
        recorder.modules.pop()
        return result

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
