"""The tensors that the modules of a model hold before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from torch_dag_core.tracing.holders import ATOMS, CONTAINERS
from torch_dag_core.tracing.submodules import named_submodules

_WITHOUT_TENSORS = frozenset({*ATOMS, *(kind for kind, _ in CONTAINERS), tuple})
"""Classes of most attributes of modules, none of which is a tensor."""


class HeldTensor(NamedTuple):
    """A parameter or buffer, under the first of its names."""

    tensor: Tensor
    path: str
    is_parameter: bool


class HeldTensors:
    """Parameters, buffers and other tensor attributes of a model's modules; the model's own when it is made.

    Args:
        modules: The modules with their paths, in the order of `nn.Module.named_modules`.
    """

    def __init__(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        # Tensors are found by their ids, and kept here so that no other object gets the same id.
        self._registered: dict[int, HeldTensor] = {}
        self._attributes: dict[int, tuple[Tensor, str]] = {}
        self._places: list[tuple[nn.Module, str, Tensor]] = []
        self._parameters: dict[nn.Module, list[int]] = {}
        for path, module in modules:
            prefix = f"{path}." if path else ""
            self._parameters[module] = _parameter_ids(module)
            self._register(prefix, module._parameters, is_parameter=True)
            self._register(prefix, module._buffers, is_parameter=False)
            self._places += [(module, name, buffer) for name, buffer in module._buffers.items() if buffer is not None]
            if _may_have_attributes(module):
                self._note_attributes(prefix, module)

    def _note_attributes(self, prefix: str, module: nn.Module) -> None:
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                self._attributes[id(value)] = (value, prefix + name)
                self._places.append((module, name, value))

    def _register(self, prefix: str, tensors: Mapping[str, Tensor | None], *, is_parameter: bool) -> None:
        for name, tensor in tensors.items():
            if tensor is not None and id(tensor) not in self._registered:
                self._registered[id(tensor)] = HeldTensor(tensor, prefix + name, is_parameter)

    def find(self, tensor: Tensor) -> HeldTensor | None:
        """Return the record of a parameter or buffer; None for any other tensor."""
        return self._registered.get(id(tensor))

    def attribute_path(self, tensor: Tensor) -> str | None:
        """Return the path of a tensor that is a plain attribute of a module; None for any other."""
        found = self._attributes.get(id(tensor))
        return None if found is None else found[1]

    def replaced(self, model: nn.Module) -> Iterator[tuple[str, Tensor, object]]:
        """Iterate over (path, old value, new value) of buffers and attributes that are other objects now."""
        found = [(module, name, old) for module, name, old in self._places if _value(module, name) is not old]
        paths = {module: path for path, module in named_submodules(model)} if found else {}
        for module, name, old in found:
            if module in paths:
                yield f"{paths[module]}.{name}".removeprefix("."), old, _value(module, name)

    def is_altered(self, module: nn.Module, is_recorded: Callable[[Tensor], bool]) -> bool:
        """Tell whether a module has other tensors than before the trace, as `torch.func.functional_call` arranges."""
        for part in module.modules() if module._modules else (module,):
            if _parameter_ids(part) != self._parameters.get(part):
                return True
            attributes = vars(part).values() if _may_have_attributes(part) else ()
            for value in (*part._buffers.values(), *attributes):
                if isinstance(value, Tensor) and id(value) not in self._registered and is_recorded(value):
                    return True
        return False


def _value(module: nn.Module, name: str) -> object:
    return module._buffers.get(name, vars(module).get(name))


def _may_have_attributes(module: nn.Module) -> bool:
    """Tell quickly whether a tensor may be a plain attribute of a module."""
    return not _WITHOUT_TENSORS.issuperset(map(type, vars(module).values()))


def _parameter_ids(module: nn.Module) -> list[int]:
    return [id(tensor) for tensor in module._parameters.values()]
