"""A model run for its trace is put back to exactly what it was, and so is what the run touched outside of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.snapshot import Snapshot


def move_parameters_to_meta(model: nn.Module) -> None:
    """Replace every parameter by one without data; tied ones stay tied. Undone by `restored`."""
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                substitute = nn.Parameter(parameter.detach().to(META), requires_grad=parameter.requires_grad)
                module._parameters[name] = moved.setdefault(id(parameter), substitute)


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run the model in this mode; `restored` puts the modes of its parts back."""
    # Modules that keep results between calls in evaluation forget them when training begins.
    model.train()
    model.train(training)
    try:
        yield
    finally:
        model.train()


@contextlib.contextmanager
def restored(model: nn.Module, snapshot: Snapshot | None = None) -> Iterator[Snapshot]:
    """Put back all that a run of the model may change, however the block ends; see `Snapshot`.

    Inside the block the random state of torch is a fixed one.

    Args:
        model: The model.
        snapshot: One of the model as it is; taken when the block begins by default.

    Yields:
        The snapshot.
    """
    snapshot = snapshot or Snapshot(model)
    with undoing(snapshot.put_back):
        snapshot.settings.start_run()
        yield snapshot


@contextlib.contextmanager
def undoing(undo: Callable[[], None]) -> Iterator[None]:
    """Call ``undo`` when the block ends, and again where an interrupt kept the first call from happening."""
    done = False

    def attempt() -> None:
        nonlocal done
        if not done:
            undo()
            done = True

    try:
        try:
            yield
        finally:
            attempt()
    finally:
        attempt()


def frozen_modules(model: nn.Module) -> frozenset[nn.Module]:
    """Return the modules that stay in evaluation mode when the model is put into training mode."""
    with restored(model):
        modes = [(module, module.training) for module in model.modules()]
        model.train()
        return frozenset(module for module, _ in modes if not module.training)


def changed_attributes(model: nn.Module, before: dict[nn.Module, dict[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Iterate over (path, old value, new value) of tensors that are other tensors than before."""
    for prefix, module in model.named_modules():
        for name, old in before.get(module, {}).items():
            new = module._buffers.get(name, vars(module).get(name))
            if isinstance(old, Tensor) and new is not old:
                yield (f"{prefix}.{name}" if prefix else name), old, new


def tensors_of(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """Return every module's buffers and plain attributes."""
    return {module: {**vars(module), **module._buffers} for module in model.modules()}
