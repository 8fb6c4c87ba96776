"""A model run for its trace is put back to exactly what it was, and so is what the run touched outside of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.snapshot import Snapshot
from torch_dag_core.tracing.submodules import have_own_modes, named_submodules


def move_parameters_to_meta(modules: Iterable[nn.Module], blanks: dict[int, Tensor]) -> None:
    """Replace every parameter of these modules by one without data; tied ones stay tied. Undone by `restored`.

    Args:
        modules: The modules.
        blanks: Takes tensors without data by the ids of parameters, to be used again in the next run.
    """
    moved: dict[int, nn.Parameter] = {}
    for module in modules:
        for name, parameter in module._parameters.items():
            if id(parameter) in moved:
                module._parameters[name] = moved[id(parameter)]
            elif parameter is not None:
                if id(parameter) not in blanks:
                    blanks[id(parameter)] = parameter.detach().to(META)
                substitute = nn.Parameter(blanks[id(parameter)], requires_grad=parameter.requires_grad)
                module._parameters[name] = moved[id(parameter)] = substitute


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[list[tuple[str, nn.Module]]]:
    """Run the model in this mode; `restored` puts the modes of its parts back.

    Yields:
        The modules that the model has in this mode, with their paths.
    """
    named = named_submodules(model)
    modules = [module for _, module in named]
    if have_own_modes(modules):
        # Modules that keep results between calls in evaluation forget them when training begins.
        model.train()
        model.train(training)
        try:
            yield named_submodules(model)
        finally:
            model.train()
        return
    modes = [(vars(module), module.training) for module in modules]
    for attributes, _ in modes:
        attributes["training"] = training
    try:
        yield named
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
    if not have_own_modes([module for module, _ in modes]):
        return frozenset()
    with restored(model):
        model.train()
        return frozenset(module for module, _ in modes if not module.training)
