"""The ways a call becomes a vertex without a normalizer: by an op's own signature, or as a `TorchCall`."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from torch import nn

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.joining import ByMode
from torch_dag_core.errors import TraceError
from torch_dag_core.op import Op
from torch_dag_core.ops.torch_call import TorchCall, allowed_functions
from torch_dag_core.values import Slot

_FIRST_NAMES = ("input", "self", "tensors", "tensor", "x", "condition")


@lru_cache(maxsize=1024)
def _operand_names(op: type[nn.Module]) -> tuple[tuple[str, ...], bool]:
    """Return the names of forward's tensors, and whether it takes any number of them."""
    parameters = list(inspect.signature(op.forward).parameters.values())[1:]
    variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return tuple(p.name for p in parameters if p.kind is not p.VAR_POSITIONAL), variadic


def by_signature(call: Call, op: type[Op]) -> Any:
    """Bind the call to ``op``: tensors first, then the fields in their order; NotImplemented if it does not fit."""
    names, variadic = _operand_names(op)
    args = list(call.args)
    operands: list[Any] = []
    if variadic and not names:
        first = args.pop(0) if args else call.keywords.get("tensors")
        operands = list(first) if isinstance(first, (tuple, list)) else [first]
    keywords = {("input" if k in _FIRST_NAMES else k): v for k, v in call.keywords.items() if k != "tensors"}
    for place, name in enumerate(names):
        if args and (isinstance(args[0], Value) or args[0] is None):
            operands.append(args.pop(0))
        elif (key := "input" if place == 0 else name) in keywords:
            operands.append(keywords.pop(key))
    constants = dict(zip(op.fields, args, strict=False)) | keywords
    while operands and operands[-1] is None:
        operands.pop()
    fits = len(args) <= len(op.fields) and constants.keys() <= op.fields.keys()
    if not fits or not all(isinstance(o, Value) for o in operands) or any(map(_is_open, constants.values())):
        return NotImplemented
    return call.emit(op(**{name: _frozen(value) for name, value in constants.items()}), *operands)


def _is_open(constant: Any) -> bool:
    """Tell whether a constant holds a tensor, or differs between the modes."""
    if isinstance(constant, (tuple, list)):
        return any(map(_is_open, constant))
    return isinstance(constant, (Value, ByMode))


def _frozen(constant: Any) -> Any:
    return tuple(map(_frozen, constant)) if isinstance(constant, (tuple, list)) else constant


def torch_call(call: Call) -> Value:
    """Emit an allowed torch function as one opaque vertex.

    Raises:
        TraceError: the function is not allowed, or an argument cannot be stored.
    """
    name = next((f"{s}.{call.name}" for s in _SPACES if f"{s}.{call.name}" in allowed_functions()), None)
    if name is None:
        message = (
            f"{call.name!r}, called in module {call.scope!r} at {call.source}, is no op of the vocabulary; "
            "register a normalizer for it, or the enclosing module as atomic (atomic_modules=)"
        )
        raise TraceError(message)
    operands: list[Value] = []
    arguments = _with_slots(call.args, operands, call)
    keywords = tuple((key, _with_slots(value, operands, call)) for key, value in call.keywords.items())
    return call.emit(TorchCall(name, arguments, keywords), *operands)


_SPACES = ("torch", "functional", "tensor", "fft", "special", "linalg")


def _with_slots(value: Any, operands: list[Value], call: Call) -> Any:
    if isinstance(value, Value):
        operands.append(value)
        return Slot(len(operands) - 1)
    if isinstance(value, (tuple, list)):
        return tuple(_with_slots(item, operands, call) for item in value)
    if isinstance(value, ByMode):
        message = f"{call.name!r} at {call.source} takes {value.evaluation!r} in evaluation, {value.training!r} in training"
        raise TraceError(message)
    return value


def bind_operands(call: Call, module: nn.Module) -> tuple[Value, ...]:
    """Return the tensors of a module call in the order of its ``forward``.

    Raises:
        TraceError: an argument is a constant other than the parameter's default.
    """
    signature = inspect.signature(module.forward)
    operands: list[Value] = []
    for name, value in signature.bind(*call.args, **call.keywords).arguments.items():
        parameter = signature.parameters[name]
        values = value if parameter.kind is parameter.VAR_POSITIONAL else (value,)
        for item in values:
            if isinstance(item, Value):
                operands.append(item)
            elif item is not parameter.default and item != parameter.default:
                message = (
                    f"{type(module).__name__} is called with the constant {name}={item!r} at {call.source}; "
                    "a vertex takes tensors only: make it an attribute of the module"
                )
                raise TraceError(message)
    return tuple(operands)


