"""How modules are saved: their configuration as constants, and a module built from it without weights.

All codecs build on the meta device: no memory for weights, no initialization, no random numbers drawn.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.nested import map_leaves
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import decode, encode

Reader = Callable[[nn.Module], Any]


class OpCodec:
    """Saves an `Op`: its declared fields are its configuration."""

    def __init__(self, target: type[Op]) -> None:
        self.target = target

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Return the constants of the op by name."""
        if not isinstance(module, Op):
            message = f"{type(module).__name__} declares no constants; an OpCodec saves subclasses of Op"
            raise TypeError(message)
        return {name: map_leaves(value, _python_number) for name, value in module.config().items()}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Return an op with these constants.

        Raises:
            TypeError: a constant is missing, unknown, or outside the closed set of values.
        """
        for name, value in config.items():
            _check_constant(self.target, name, value)
        with torch.device("meta"):
            op = self.target(**config)
        _refuse_unknown(self.target, config, op.config())
        return op


class ModuleCodec:
    """Saves a module class whose constructor arguments can be read back off the instance.

    ``inplace`` is never saved: a graph has no in-place calls, so the built module has the default, False.

    Args:
        target: The class.
        parameters: Names of the constructor's parameters, where its signature does not list them.
        readers: Functions of the instance that return an argument, for parameters that the class does not keep as
            attributes of the same name.
        left_out: Parameters that are never saved, such as deprecated spellings of others.
        implied: For parameters that only newer releases of the class have: what older ones do, as a function of the
            other arguments. A file of a newer release loads where it says the same.

    Raises:
        TypeError: the constructor has a parameter that the class does not keep as an attribute.
    """

    def __init__(
        self, target: type[nn.Module], *, parameters: Collection[str] | None = None,
        readers: Mapping[str, Reader] | None = None, left_out: Collection[str] = (),
        implied: Mapping[str, Callable[[Mapping[str, Any]], Any]] | None = None,
    ) -> None:  # fmt: skip
        self.target, self._implied = target, implied or {}
        names = _parameter_names(target, left_out) if parameters is None else parameters
        given = readers or {}
        if parameters is None:
            _refuse_forgotten(target, [name for name in names if name not in given])
        self._readers = {name: given.get(name) or _reader(name) for name in names}

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Return the constructor arguments that make such a module."""
        return {name: _plain(read(module)) for name, read in self._readers.items()}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Return a module made with these constructor arguments, on the meta device."""
        given = {name: value for name, value in config.items() if not self._is_implied(name, value, config)}
        _refuse_unknown(self.target, given, self._readers)
        with torch.device("meta"):
            return self.target(**given)

    def _is_implied(self, name: str, value: Any, config: Mapping[str, Any]) -> bool:
        """Tell whether this release has no such parameter, but does what the value says."""
        return name not in self._readers and name in self._implied and value == self._implied[name](config)


class ClassCodec:
    """Saves a user's own class that has ``config()`` and a constructor taking it as keywords."""

    def __init__(self, target: type[nn.Module]) -> None:
        self.target = target

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Return what the class says of the instance."""
        config: dict[str, Any] = module.config()  # type: ignore[operator]
        return {name: _plain(value) for name, value in config.items()}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Call the constructor, on the meta device."""
        with torch.device("meta"):
            return self.target(**config)


def codec_for(target: type[nn.Module]) -> OpCodec | ModuleCodec | ClassCodec:
    """Return the codec of a class: by its fields if it is an `Op`, by its ``config()``, else by its constructor."""
    if issubclass(target, Op):
        return OpCodec(target)
    return ClassCodec(target) if callable(getattr(target, "config", None)) else ModuleCodec(target)


# Constructor parameters that a file does not need: device and type are those of the tensors.
_NOT_SAVED = {"device", "dtype", "inplace"}


def _parameter_names(target: type[nn.Module], left_out: Collection[str]) -> tuple[str, ...]:
    if target.__init__ in (nn.Module.__init__, nn.Identity.__init__):
        return ()
    parameters = inspect.signature(target).parameters.values()
    return tuple(p.name for p in parameters if p.name not in left_out and _is_saved(p))


def _is_saved(parameter: inspect.Parameter) -> bool:
    is_private = parameter.name.startswith("_") and parameter.default is not parameter.empty
    return parameter.name not in _NOT_SAVED and not is_private


def _refuse_forgotten(target: type[nn.Module], names: Collection[str]) -> None:
    stored = _stored_attributes(target)
    for name in names:
        if name not in stored:
            message = (
                f"{target.__qualname__} does not keep its constructor parameter {name!r} as an attribute; "
                "register it with a codec of its own"
            )
            raise TypeError(message)


def _reader(name: str) -> Reader:
    return _read_bias if name == "bias" else lambda module: getattr(module, name)


def _stored_attributes(target: type[nn.Module]) -> set[str]:
    """List the names that any constructor of the class assigns."""
    constructors = (vars(base).get("__init__") for base in target.__mro__ if base not in (nn.Module, object))
    return {
        instruction.argval
        for constructor in constructors
        if constructor is not None
        for instruction in dis.get_instructions(constructor)
        if instruction.opname == "STORE_ATTR"
    }


def _read_bias(module: nn.Module) -> bool:
    bias: Any = module.bias
    return bias if isinstance(bias, bool) else bias is not None


def _plain(value: Any) -> Any:
    """Return a constructor argument as a constant: lists as tuples, numbers as Python's own."""
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else _python_number(value)


def _python_number(value: Any) -> Any:
    """Return the scalars of numpy and its kin as Python numbers, and everything else as it is."""
    is_scalar = not isinstance(value, Tensor) and getattr(value, "shape", None) == ()
    return value.item() if is_scalar and callable(getattr(value, "item", None)) else value


def _refuse_unknown(target: type[nn.Module], config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = [name for name in config if name not in known]
    if unknown:
        message = f"{target.__qualname__} has no constant named {', '.join(map(repr, unknown))}"
        raise TypeError(message)


def _check_constant(target: type[nn.Module], name: str, value: Any) -> None:
    try:
        decode(encode(value))
    except (TypeError, ValueError, LookupError) as error:
        message = f"constant {name!r} of {target.__qualname__} cannot be saved: {error}"
        raise TypeError(message) from error
