"""How modules are saved: their configuration as constants, and a module built from it without weights.

Both codecs build on the meta device: no memory for weights, no initialization, no random numbers drawn.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

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
        return module.config()

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

    Raises:
        TypeError: the constructor has a parameter that the class does not keep as an attribute.
    """

    def __init__(self, target: type[nn.Module]) -> None:
        self.target = target
        self._readers = {name: _reader(target, name) for name in _parameter_names(target)}

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Return the constructor arguments that make such a module."""
        return {name: _plain(read(module)) for name, read in self._readers.items()}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Return a module made with these constructor arguments, on the meta device."""
        _refuse_unknown(self.target, config, self._readers)
        with torch.device("meta"):
            return self.target(**config)


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


# Constructor parameters that say nothing about the module that a file has to keep.
_NOT_SAVED = {"device", "dtype", "inplace"}
_DEPRECATED = {(nn.Hardtanh, "min_value"), (nn.Hardtanh, "max_value")}
_RNN = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
# Classes whose signature is only ``*args, **kwargs``.
_HIDDEN_PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.RNN: (*_RNN, "nonlinearity"),
    nn.LSTM: (*_RNN, "proj_size"),
    nn.GRU: _RNN,
}
_SPECIAL_READERS: dict[tuple[type[nn.Module], str], Reader] = {
    (nn.PairwiseDistance, "p"): lambda module: module.norm,
    (nn.MultiheadAttention, "bias"): lambda module: module.in_proj_bias is not None,
    (nn.MultiheadAttention, "add_bias_kv"): lambda module: module.bias_k is not None,
}


def _parameter_names(target: type[nn.Module]) -> tuple[str, ...]:
    if target in _HIDDEN_PARAMETERS:
        return _HIDDEN_PARAMETERS[target]
    if target.__init__ in (nn.Module.__init__, nn.Identity.__init__):
        return ()
    parameters = inspect.signature(target).parameters.values()
    return tuple(p.name for p in parameters if _is_saved(target, p))


def _is_saved(target: type[nn.Module], parameter: inspect.Parameter) -> bool:
    name = parameter.name
    is_private = name.startswith("_") and parameter.default is not parameter.empty
    return name not in _NOT_SAVED and (target, name) not in _DEPRECATED and not is_private


def _reader(target: type[nn.Module], name: str) -> Reader:
    special = _SPECIAL_READERS.get((target, name))
    if special is not None:
        return special
    if target not in _HIDDEN_PARAMETERS and name not in _stored_attributes(target):
        message = (
            f"{target.__qualname__} does not keep its constructor parameter {name!r} as an attribute; "
            "register it with a codec of its own"
        )
        raise TypeError(message)
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
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value


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
