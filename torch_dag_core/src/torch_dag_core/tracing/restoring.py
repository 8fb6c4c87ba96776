"""A model run for its trace is put back to exactly what it was, and so is what the run touched outside of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.snapshot import Snapshot
from torch_dag_core.tracing.submodules import has_own_mode, named_submodules


def move_parameters_to_meta(model: nn.Module) -> None:
    """Replace every parameter by one without data; tied ones stay tied. Undone by `restored`."""
    moved: dict[int, nn.Parameter] = {}
    for _, module in named_submodules(model):
        for name, parameter in module._parameters.items():
            if id(parameter) in moved:
                module._parameters[name] = moved[id(parameter)]
            elif parameter is not None:
                substitute = nn.Parameter(parameter.detach().to(META), requires_grad=parameter.requires_grad)
                module._parameters[name] = moved[id(parameter)] = substitute


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run the model in this mode; `restored` puts the modes of its parts back."""
    modules = [module for _, module in named_submodules(model)]
    if any(map(has_own_mode, modules)):
        # Modules that keep results between calls in evaluation forget them when training begins.
        model.train()
        model.train(training)
        try:
            yield
        finally:
            model.train()
        return
    modes = [(vars(module), module.training) for module in modules]
    for attributes, _ in modes:
        attributes["training"] = training
    try:
        yield
    finally:
        for attributes, mode in modes:
            attributes["training"] = mode


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
    modes = [(module, module.training) for _, module in named_submodules(model)]
    if not any(has_own_mode(module) for module, _ in modes):
        return frozenset()
    with restored(model):
        model.train()
        return frozenset(module for module, _ in modes if not module.training)


class TensorAttributes:
    """The buffers and plain tensor attributes of a model's modules before a run."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._before = [
            (module, name, value)
            for _, module in named_submodules(model)
            for attributes in (vars(module), module._buffers)
            for name, value in attributes.items()
            if isinstance(value, Tensor)
        ]

    def changed(self) -> Iterator[tuple[str, Tensor, Any]]:
        """Iterate over (path, old value, new value) of tensors that are other objects now."""
        changed = [(module, name, old) for module, name, old in self._before if _attribute(module, name) is not old]
        paths = {module: path for path, module in named_submodules(self._model)} if changed else {}
        for module, name, old in changed:
            if module in paths:
                yield ".".join(filter(None, (paths[module], name))), old, _attribute(module, name)


def _attribute(module: nn.Module, name: str) -> Any:
    return module._buffers.get(name, vars(module).get(name))
