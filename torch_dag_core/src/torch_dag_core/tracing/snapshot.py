"""A copy of everything that a run of a model may change: what its code can reach, and settings of torch.

A `Snapshot` is taken before a run. Afterwards it tells what the run changed, and puts everything back: the same
objects, in the same order, with the same content. What the code can reach is found by `Reachable`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from torch_dag_core.tracing.places import Place, places_in, places_in_class, places_in_defaults
from torch_dag_core.tracing.reachable import Reachable, scopes_naming
from torch_dag_core.tracing.settings import Settings
from torch_dag_core.tracing.tensor_content import Content
from torch_dag_core.tracing.tensors import storage_of, version_of

_FOLLOWED = frozenset({"_parameters", "_buffers", "training"})
"""Attributes of modules that every trace changes or follows call by call."""


@dataclass(frozen=True)
class Change:
    """A value that a run changed.

    Attributes:
        path: Where the value is, as Python would spell it.
        container: The object that holds the value; None where that is unknown.
        key: The key in the container; None where it has no keys.
        old, new: The value before and after.
    """

    path: str
    container: object = None
    key: Hashable = None
    old: object = None
    new: object = None


class Snapshot:
    """The state of a model, and of what its code can reach, at the moment of construction.

    Attributes:
        settings: Random states and settings of torch.
        blanks: What traces put in place of parameters, see `move_parameters_to_meta`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.settings = Settings()
        self.blanks: dict[int, Tensor] = {}
        reachable = Reachable(model)
        self._before = [(holder, holder.read()) for holder in reachable.holders]
        self._contents: dict[int, Content] = {}
        self._buffers = {id(tensor) for tensor in model.buffers()}
        self._tensors = reachable.tensors
        self._seen = reachable.seen
        self._functions, self._classes = reachable.functions, reachable.classes
        self._places: list[Place] | None = None
        for _, tensor in reachable.tensors:
            if Content.is_cheap(tensor) or id(tensor) in self._buffers:
                self.hold(tensor)
        self._marked, self._empty = self._before, reachable.empty
        self._versions = [version_of(tensor) for _, tensor in self._tensors]

    def hold(self, tensor: Tensor) -> None:
        """Keep the content of a tensor that is about to be written, unless it is kept already."""
        if not tensor.is_meta and storage_of(tensor) not in self._contents:
            self._contents[storage_of(tensor)] = Content(tensor)

    def path_of(self, tensor: Tensor) -> str | None:
        """Return where a tensor was found, None for one that was not."""
        return next((path for path, found in self._tensors if found is tensor), None)

    def places_of(self, wanted: frozenset[int]) -> list[Place]:
        """Return where the model keeps objects of these ids, apart from the global names of modules."""
        if self._places is None:
            self._places = self._found_places(wanted)
        return self._places

    def _found_places(self, wanted: frozenset[int]) -> list[Place]:
        return [
            *(place for holder, content in self._before for place in places_in(holder.container, content, wanted)),
            *(place for function in self._functions for place in places_in_defaults(function, wanted)),
            *(place for cls in self._classes for place in places_in_class(cls, wanted)),
        ]

    @property
    def modules(self) -> set[str]:
        """Names of the modules that define the model's classes and the functions that it may call."""
        return {str(code.__module__) for code in (*self._classes, *self._functions)}

    def scopes_naming(self, names: frozenset[str]) -> list[dict[str, Any]]:
        """Return the global namespaces of functions of the model that name one of ``names``."""
        return scopes_naming(self._functions, names)

    def has_seen(self, value: object) -> bool:
        """Tell whether an object was there, and reachable, when the snapshot was taken."""
        return id(value) in self._seen

    def mark(self) -> None:
        """Let `changes` report what differs from this moment on."""
        self._marked = [(holder, holder.read()) for holder, _ in self._before]
        self._versions = [version_of(tensor) for _, tensor in self._tensors]

    def changes(self) -> Iterator[Change]:
        """Iterate over what differs from the mark, except for parameters, buffers and modes."""
        for holder, content in self._marked:
            for key, old, new in holder.differences(content):
                if not (holder.is_module and key in _FOLLOWED) and holder.name not in _FOLLOWED:
                    yield Change(holder.path_of(key), holder.container, key, old, new)
        for holder, name, container in self._empty:
            if container and name not in _FOLLOWED:
                yield Change(holder.path_of(name))
        for (path, tensor), version in zip(self._tensors, self._versions, strict=True):
            if id(tensor) not in self._buffers and not tensor.is_meta and self._is_written(tensor, version):
                yield Change(path)

    def _is_written(self, tensor: Tensor, version: int | None) -> bool:
        if version is not None and version_of(tensor) != version:
            return True
        content = self._contents.get(storage_of(tensor))
        return content is not None and content.differs()

    def put_back(self) -> None:
        """Restore everything; an interrupt is raised after the work is done.

        Raises:
            Exception: what could not be restored raised it; everything else is restored nevertheless.
        """
        failures: list[BaseException] = []
        while True:
            try:
                self._put_back(failures)
                break
            except KeyboardInterrupt as interrupt:
                failures = [interrupt]
        if failures:
            try:
                raise failures[0]
            finally:
                failures.clear()  # no cycle of exception and frame, which would keep context managers open

    def _put_back(self, failures: list[BaseException]) -> None:
        """Take every step of restoring; an error is noted instead of raised, so that the others are still taken."""
        _attempt(failures, self.settings.put_back)
        for _, _, container in self._empty:
            if container:
                container.clear()
        for holder, content in self._before:
            try:
                holder.write(content)
            except Exception as error:  # noqa: BLE001
                failures.append(error)
        for saved in self._contents.values():
            _attempt(failures, saved.put_back)


def _attempt(failures: list[BaseException], step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:  # noqa: BLE001
        failures.append(error)
