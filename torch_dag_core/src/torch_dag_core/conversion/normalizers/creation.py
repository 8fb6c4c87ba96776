"""Normalizers of functions that create tensors with random values, or with sizes that depend on the inputs."""

from __future__ import annotations

import torch

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft
from torch_dag_core.conversion.free_sizes import FreeSize
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.ops.arithmetic import Add, Cast, Mul
from torch_dag_core.ops.creation import Arange, Full, Linspace
from torch_dag_core.ops.layout import Expand
from torch_dag_core.ops.stochastic import Random

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


_PARAMETERS = {"uniform": ("from", "to"), "normal": ("mean", "std")}


@normalizes("uniform", "normal")
def random_in_place(call: Call, input: Value, *given: Operand, **keywords: Operand) -> Emitted:
    """Emit `Random`, scaled and shifted, for ``x.uniform_()`` and ``x.normal_()`` with constant parameters."""
    names = _PARAMETERS[call.name]
    named: dict[str, Operand] = dict(zip(names, (0.0, 1.0), strict=True))
    named |= dict(zip(names, given, strict=False)) | keywords
    low, high = (named[name] for name in names)
    if named.keys() != set(names) or isinstance(low, FreeSize) or isinstance(high, FreeSize):
        return PASS
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return PASS
    # Only the sizes of the overwritten tensor matter; if they are constants, any tensor gives the device.
    like = input if any(type(size) is FreeSize for size in call.shape or ()) else call.builder.inputs[0]
    drawn = call.emit(Random(call.shape or (), call.name, call.dtype), like)
    scale = high - low if call.name == "uniform" else high
    scaled = drawn if scale == 1 else call.emit(Mul(scalar=scale), drawn, stem="scale")
    return scaled if low == 0 else call.emit(Add(scalar=low), scaled, stem="shift")


@normalizes("bernoulli")
def bernoulli(call: Call, input: Value, p: Operand = None, **_: Operand) -> Emitted:
    """Emit `Random` if the probability is a constant."""
    if not isinstance(p, float):
        return PASS
    return call.emit(Random(call.shape or (), "bernoulli", call.dtype, p), input)
