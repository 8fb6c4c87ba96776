"""Conversion of calls without a normalizer: by the signature of the op, or as `TorchCall`."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, NoReturn

from torch import nn

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft, frozen
from torch_dag_core.conversion.joining import ByMode
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.layout import Pack
from torch_dag_core.ops.torch_call import TorchCall, is_allowed
from torch_dag_core.tracing.recording import Ref

_FIRST_NAMES = ("input", "self", "tensors", "tensor", "x", "condition")


@lru_cache(maxsize=1024)
def _operand_names(op: Any) -> tuple[tuple[str, ...], bool]:
    """Return the names of the tensors that ``forward`` takes, and whether it takes any number of them."""
    parameters = list(inspect.signature(op.forward).parameters.values())[1:]
    variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return tuple(p.name for p in parameters if p.kind is not p.VAR_POSITIONAL), variadic


def by_signature(call: Call, op: type[nn.Module]) -> Emitted:
    """Emit ``op`` with the arguments of the call: first the tensors, then the fields in order.

    Returns NotImplemented if the arguments do not fit, or if a constant is a tensor or differs between modes.
    """
    if not issubclass(op, Op):
        return PASS
    keywords = {("input" if k in _FIRST_NAMES else k): v for k, v in call.keywords.items() if k != "tensors"}
    operands, args = _operands(call, op, keywords)
    while operands and operands[-1] is None:
        operands.pop()
    constants = dict(zip(op.fields, args, strict=False)) | keywords
    fits = len(args) <= len(op.fields) and constants.keys() <= op.fields.keys()
    values = [operand for operand in operands if isinstance(operand, Value)]
    if not fits or len(values) < len(operands) or any(map(_is_open, constants.values())):
        return PASS
    return call.emit(op(**{name: frozen(value) for name, value in constants.items()}), *values)


def _operands(call: Call, op: type[Op], keywords: dict[str, Operand]) -> tuple[list[Operand], list[Operand]]:
    """Return the arguments for the tensors of the op, removed from ``keywords``, and the remaining positional ones."""
    kind: Any = op  # mypy takes module classes for unhashable
    names, variadic = _operand_names(kind)
    args, operands = list(call.args), list[Operand]()
    if variadic and not names:
        first = args.pop(0) if args else call.keywords.get("tensors")
        operands = list(first) if isinstance(first, (tuple, list)) else [first]
    for place, name in enumerate(names):
        if args and (isinstance(args[0], Value) or args[0] is None):
            operands.append(args.pop(0))
        elif (key := "input" if place == 0 else name) in keywords:
            operands.append(keywords.pop(key))
    return operands, args


def _is_open(constant: Operand) -> bool:
    """Return whether a constant contains a tensor, or differs between the modes."""
    return any(isinstance(leaf, (Value, ByMode)) for leaf in leaves(constant))


def torch_call(call: Call) -> Value:
    """Emit `TorchCall`, one vertex for an allowed torch function.

    Raises:
        TraceError: the function is not allowed, or an argument differs between the modes.
    """
    names = (
        *(f"{space}.{call.name}" for space in _SPACES),
        call.name.replace("_", ".", 1),
        call.name.replace("::", "."),
    )
    name = next((name for name in names if is_allowed(name)), None)
    if name is None:
        message = (
            f"{call.name!r}, called in module {call.scope!r} at {call.source}, is no op of the vocabulary; "
            "register a normalizer for it, or the enclosing module as atomic (atomic_modules=)"
        )
        raise TraceError(message)
    operands: list[Value] = []

    def stored(leaf: Operand) -> Operand:
        if isinstance(leaf, Value):
            operands.append(leaf)
            return Slot(len(operands) - 1)
        if isinstance(leaf, ByMode) and any(map(_is_tensor, leaves((leaf.evaluation, leaf.training)))):
            message = (
                f"{call.name!r} at {call.source} takes {leaf.evaluation!r} in evaluation "
                f"and {leaf.training!r} in training"
            )
            raise TraceError(message)
        return leaf

    arguments = map_leaves(frozen(call.args), stored)
    keywords = tuple((key, map_leaves(frozen(value), stored)) for key, value in call.keywords.items())
    return call.emit(draft(TorchCall, name, arguments, keywords), *operands, stem=call.name.rpartition("::")[2])


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, (Value, Ref))


_SPACES = ("torch", "functional", "tensor", "fft", "special", "linalg")


def bind_operands(call: Call, module: nn.Module) -> tuple[Value, ...]:
    """Return the tensors of a module call in the order of the parameters of ``forward``.

    Raises:
        TraceError: an argument is a constant other than the default, or a tensor cannot be passed by position.
    """
    if not call.keywords:
        values = tuple(argument for argument in call.args if isinstance(argument, Value))
        if len(values) == len(call.args):
            return values
    signature = inspect.signature(module.forward)
    given = signature.bind(*call.args, **call.keywords).arguments
    operands: list[Value] = []
    skipped = ""
    for name, parameter in signature.parameters.items():
        value = given.get(name, parameter.default)
        for item in value if parameter.kind is parameter.VAR_POSITIONAL and name in given else (value,):
            operand = _operand(call, item)
            if operand is None and item is not parameter.default and item != parameter.default:
                _refuse(call, module, f"the constant {name}={item!r}")
            if operand is not None and (skipped or parameter.kind is parameter.KEYWORD_ONLY):
                _refuse(call, module, f"{name} but without {skipped}" if skipped else f"{name}, by keyword only")
            if operand is None:
                skipped = skipped or name
            else:
                operands.append(operand)
    return tuple(operands)


def _operand(call: Call, item: Operand) -> Value | None:
    """Return the value of an argument, None if it is a constant; a tuple of tensors is packed into one value."""
    if isinstance(item, (tuple, list)):
        parts = [part for part in item if isinstance(part, Value)]
        return call.emit(Pack(), *parts, stem=f"{call.name}_arguments") if parts and len(parts) == len(item) else None
    return item if isinstance(item, Value) else None


def _refuse(call: Call, module: nn.Module, what: str) -> NoReturn:
    message = (
        f"{type(module).__name__} ({call.path!r}) is called with {what}, at {call.source}; a vertex takes tensors "
        "only, one position after the other: make the rest attributes of the module"
    )
    raise TraceError(message)
