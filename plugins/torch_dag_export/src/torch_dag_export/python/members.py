"""The ``__init__`` of an exported model: its modules and tensors under the names that they have in the graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.builtin_ops import FreeParameter, TensorHolder
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.registration import prefixes, registrations
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.loading import default_registry
from torch_dag_export.errors import ExportError
from torch_dag_export.python.form import PythonForm
from torch_dag_export.python.literals import literal, text
from torch_dag_export.python.names import is_attribute, place


class Members:
    """What ``__init__`` makes.

    Attributes:
        places: The expression of each module of the graph.
        lines: The statements of ``__init__``.
        tensors: The tensors of the model by their names in its state dict; one that has several names, once.
    """

    def __init__(self, dag: DagModule, forms: Mapping[InnerVertex, PythonForm]) -> None:
        self.places: dict[nn.Module, str] = {}
        self.lines: list[str] = []
        self.tensors: dict[str, Tensor] = {}
        self._homes: dict[int, str] = {}
        self._groups: set[str] = set()
        paths = {module: path for path, module in registrations(dag).items()}
        for vertex, form in forms.items():
            if vertex.module not in self.places:
                self.places[vertex.module] = place(paths[vertex.module])
                self._add(paths[vertex.module], vertex.module, form)

    @property
    def needs_group(self) -> bool:
        """Whether the file needs the class of groups."""
        return bool(self._groups) or self.root_is_group

    @property
    def root_is_group(self) -> bool:
        """Whether the model itself is one, because names such as "0" lie directly in it."""
        return any(place_.startswith("self[") for place_ in self.places.values())

    def _add(self, path: str, module: nn.Module, form: PythonForm) -> None:
        if isinstance(module, TensorHolder):
            self._open_groups(path)
            self._add_holder(path, module)
        elif form.expression is None:
            self._open_groups(path)
            self._assign(path, _construction(path, module))
            self._add_tensors(path, module)
        elif next(module.parameters(), None) is not None or next(module.buffers(), None) is not None:
            message = f"the form of {type(module).__name__} ({path!r}) writes an expression, but the module has tensors"
            raise ExportError(message)

    def _open_groups(self, path: str) -> None:
        for prefix in prefixes(path):
            if prefix not in self._groups:
                self._groups.add(prefix)
                self._assign(prefix, "Group()")

    def _assign(self, path: str, value: str, function: str = "add_module", more: str = "") -> None:
        """Add the statement that registers a value: an assignment where the name allows it, else a call."""
        folder, _, last = path.rpartition(".")
        if is_attribute(last) and function != "register_buffer":
            self.lines.append(f"{place(path)} = {value}")
        else:
            owner = place(folder) if folder else "self"
            self.lines.append(f"{owner}.{function}({text(last)}, {value}{more})")

    def _add_holder(self, path: str, holder: TensorHolder) -> None:
        tensor = holder.value
        shared = self._homes.get(id(tensor))
        made = f"torch.empty({literal(tuple(tensor.shape))}, dtype={tensor.dtype})"
        if isinstance(holder, FreeParameter):
            frozen = "" if tensor.requires_grad else ", requires_grad=False"
            self._assign(path, shared or f"nn.Parameter({made}{frozen})", "register_parameter")
        else:
            self._assign(path, shared or made, "register_buffer")
        self._remember(path, tensor)

    def _add_tensors(self, path: str, module: nn.Module) -> None:
        """Remember the tensors of a module; those that another module has too are made the same."""
        for name, tensor in module.state_dict(keep_vars=True).items():
            own = f"{path}.{name}"
            shared = self._homes.get(id(tensor))
            if shared is not None:
                self.lines.append(f"{place(own)} = {shared}")
            self._remember(own, tensor)

    def _remember(self, path: str, tensor: Tensor) -> None:
        if type(tensor) not in (Tensor, nn.Parameter):
            message = f"{path!r} is a {type(tensor).__name__}; the format 'python' holds plain tensors alone"
            raise ExportError(message)
        if id(tensor) not in self._homes:
            self._homes[id(tensor)] = place(path)
            self.tensors[path] = tensor.detach()


def _construction(path: str, module: nn.Module) -> str:
    """Return the call that makes such a module, with what differs from the defaults.

    Raises:
        ExportError: the class has no codec, or its tensors have several precisions.
    """
    spec = default_registry().for_module(module)
    if spec is None or spec.codec is None:
        message = f"{type(module).__name__} ({path!r}) has no codec, so that nothing says how to make it"
        raise ExportError(message)
    target = type(module)
    name = f"nn.{target.__name__}" if getattr(nn, target.__name__, None) is target else target.__name__
    config = {} if isinstance(module, nn.Identity) else spec.codec.config(module)
    return f"{name}({_given(target, config)}){_cast(path, module)}"


def _given(target: type[nn.Module], config: Mapping[str, Any]) -> str:
    parameters = inspect.signature(target).parameters
    given: list[str] = []
    for name, value in config.items():
        parameter = parameters.get(name)
        if parameter is None or not _is_default(target, parameter.default, value):
            given.append(_argument(name, value, parameter, len(given), list(parameters)))
    return ", ".join(given)


def _is_default(target: type[nn.Module], default: Any, value: Any) -> bool:
    """Tell whether a value is that of the default; classes of torch take an int for a size in all dimensions."""
    is_torch = getattr(nn, target.__name__, None) is target
    if is_torch and type(default) is int and isinstance(value, tuple):
        return set(value) == {default}
    return type(default) is type(value) and bool(default == value)


def _argument(name: str, value: Any, parameter: inspect.Parameter | None, place_: int, order: Sequence[str]) -> str:
    """Return one argument, without its name if it is required and stands in its place."""
    required = parameter is not None and parameter.default is parameter.empty
    positional = required and parameter is not None and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    return literal(value) if positional and order[place_ : place_ + 1] == [name] else f"{name}={literal(value)}"


def _is_cast(tensor: Tensor) -> bool:
    """Tell whether ``module.to(dtype)`` converts a tensor."""
    return tensor.is_floating_point() or tensor.is_complex()


def _cast(path: str, module: nn.Module) -> str:
    used = {tensor.dtype for tensor in module.state_dict().values() if _is_cast(tensor)}
    if len(used) > 1:
        message = f"{type(module).__name__} ({path!r}) has tensors of several precisions, which Python cannot make"
        raise ExportError(message)
    return "" if used <= {torch.float32} else f".to({used.pop()})"
