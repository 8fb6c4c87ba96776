"""Normalizers of functions that create tensors with random values, or with sizes that depend on the inputs."""

from __future__ import annotations

from typing import TypeGuard

import torch

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft
from torch_dag_core.conversion.free_sizes import FreeSize
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.arithmetic import Add, Cast, Mul
from torch_dag_core.ops.creation import Arange, Full, Linspace
from torch_dag_core.ops.layout import Expand
from torch_dag_core.ops.stochastic import Random
from torch_dag_core.ops.torch_call import TorchCall

_FILLS: dict[str, float] = {"zeros": 0.0, "ones": 1.0, "empty": 0.0}
_PREFIXED = {f"new_{name}": value for name, value in _FILLS.items()}
_LIKE = {f"{name}_like": value for name, value in _FILLS.items()}


def _like(call: Call) -> tuple[Value, ...]:
    """Return the first tensor among the arguments, or the first input of the graph; the result is on its device."""
    given = [value for value in call.args if isinstance(value, Value)]
    return (given[0],) if given else (call.builder.inputs[0],)


@normalizes(*_FILLS, *_PREFIXED, *_LIKE)
def fill(call: Call, *_: Operand, **__: Operand) -> Value:
    """Emit `Full` with the recorded shape."""
    value = {**_FILLS, **_PREFIXED, **_LIKE}[call.name]
    return call.emit(Full(call.shape or (), value, _dtype(call)), *_like(call))


@normalizes("zero", "fill")
def fill_in_place(call: Call, input: Value, value: Operand = 0.0) -> Value:
    """Emit `Full` or `Expand` for ``x.zero_()`` and ``x.fill_(value)``; the values of x are not used."""
    if isinstance(value, Value):
        return call.emit(Expand(call.shape or ()), call.emit(draft(Cast, call.dtype), value, stem="cast"), input)
    return call.emit(draft(Full, call.shape or (), value, _dtype(call)), input)


@normalizes("full", "new_full", "full_like")
def full(call: Call, *args: Operand, **kwargs: Operand) -> Emitted:
    """Emit `Full` with the recorded shape if the value is a constant."""
    constants = [value for value in args if not isinstance(value, Value)]
    value = kwargs.get("fill_value", constants[-1] if constants else None)
    if isinstance(value, (Value, tuple, list)) or value is None:
        return PASS
    return call.emit(draft(Full, call.shape or (), value, _dtype(call)), *_like(call))


def _dtype(call: Call) -> torch.dtype | None:
    """Return the dtype of the result, or None if it is that of the tensor given by `_like`."""
    like = _like(call)[0]
    return None if like.dtype == call.dtype else call.dtype


@normalizes("arange")
def arange(call: Call, *args: Operand, **kwargs: Operand) -> Emitted:
    """Emit `Arange`, unless a bound is a tensor."""
    given = {1: (0, *args, 1), 2: (*args, 1), 3: args}.get(len(args), (0, 0, 1))
    bounds = [kwargs.get(name, value) for name, value in zip(("start", "end", "step"), given, strict=True)]
    if any(isinstance(bound, Value) for bound in bounds):
        return PASS
    return call.emit(draft(Arange, *bounds, call.dtype), *_like(call))


@normalizes("linspace")
def linspace(call: Call, start: Operand, end: Operand, steps: Operand = None, **_: Operand) -> Emitted:
    """Emit `Linspace` if both ends are constants."""
    if type(start) not in (int, float) or type(end) not in (int, float):
        return PASS
    return call.emit(draft(Linspace, start, end, steps, call.dtype), *_like(call))


@normalizes("rand", "randn", "rand_like", "randn_like")
def random(call: Call, *_: Operand, **__: Operand) -> Value:
    """Emit `Random` with the recorded shape."""
    kind = "uniform" if call.name.startswith("rand_") or call.name == "rand" else "normal"
    return call.emit(Random(call.shape or (), kind, call.dtype), *_like(call))


_PARAMETERS = {"uniform": ("from", "to"), "normal_": ("mean", "std")}


@normalizes(*_PARAMETERS)
def random_in_place(call: Call, input: Value, *given: Operand, **keywords: Operand) -> Emitted:
    """Emit `Random`, scaled and shifted, for ``x.uniform_()`` and ``x.normal_()`` with constant parameters."""
    names = _PARAMETERS[call.name]
    named: dict[str, Operand] = dict(zip(names, (0.0, 1.0), strict=True))
    named |= dict(zip(names, given, strict=False)) | keywords
    if named.keys() != set(names):
        return PASS
    return _affine_draw(call, call.name.strip("_"), _like_drawn(call, input), *(named[name] for name in names))


def _like_drawn(call: Call, overwritten: Value) -> Value:
    """Return the tensor to draw like: of one that is overwritten, nothing but free sizes counts."""
    is_free = any(type(size) is FreeSize for size in call.shape or ())
    return overwritten if is_free else call.builder.inputs[0]


def _affine_draw(call: Call, kind: str, like: Value, low: Operand, high: Operand) -> Emitted:
    """Draw uniformly between two numbers, or normally with a mean and a standard deviation."""
    if isinstance(low, FreeSize) or isinstance(high, FreeSize):
        return PASS
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return PASS
    drawn = call.emit(Random(call.shape or (), kind, call.dtype), like, stem=kind)
    scale = high - low if kind == "uniform" else high
    scaled = drawn if scale == 1 else call.emit(Mul(scalar=scale), drawn, stem="scale")
    return scaled if low == 0 else call.emit(Add(scalar=low), scaled, stem="shift")


@normalizes("normal")
def normal(call: Call, mean: Operand = 0.0, std: Operand = 1.0, size: Operand = None, **_: Operand) -> Emitted:
    """A normal draw with numbers for both parameters; tensors go to ``torch.normal`` itself."""
    if isinstance(mean, Value) or isinstance(std, Value):
        return _torch_function("torch.normal", call, mean, std)
    return PASS if size is None else _affine_draw(call, "normal", call.builder.inputs[0], mean, std)


@normalizes("bernoulli")
def bernoulli(call: Call, input: Value, p: Operand = None) -> Emitted:
    """Draws with a constant probability, or with that of each element."""
    if p is None:
        return _torch_function("torch.bernoulli", call, input)
    return call.emit(Random(call.shape or (), "bernoulli", call.dtype, float(p)), input) if _is_number(p) else PASS


@normalizes("bernoulli_")
def bernoulli_in_place(call: Call, input: Value, p: Operand = 0.5) -> Emitted:
    """``x.bernoulli_(p)`` forgets what was there; so it does where ``p`` is a tensor of the same shape and type."""
    if isinstance(p, Value):
        is_alike = (p.shape, p.dtype) == (call.shape, call.dtype)
        return _torch_function("torch.bernoulli", call, p) if is_alike else PASS
    like = _like_drawn(call, input)
    return call.emit(Random(call.shape or (), "bernoulli", call.dtype, float(p)), like) if _is_number(p) else PASS


def _is_number(value: Operand) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, FreeSize)


def _torch_function(name: str, call: Call, *arguments: Operand) -> Value:
    """Emit one call of a torch function that draws by the tensors it is given."""
    operands = [value for value in arguments if isinstance(value, Value)]
    places = iter(range(len(operands)))
    stored = tuple(Slot(next(places)) if isinstance(value, Value) else value for value in arguments)
    return call.emit(TorchCall(name, stored), *operands)
