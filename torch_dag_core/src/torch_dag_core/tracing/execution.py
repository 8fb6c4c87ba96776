"""Running a call without data: whatever depends on inputs or parameters lives on the meta device.

Constants (buffers and what is computed from them alone) stay real, so that masks, index tables and decisions
taken on them keep their values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torch_dag_core.tracing.names import ESCAPES, sizing_operands, spelling
from torch_dag_core.tracing.shortcuts import known_result

META = torch.device("meta")
CREATION = frozenset({"new_zeros", "new_ones", "new_full", "new_tensor", "zeros_like", "ones_like", "full_like"})
"""Functions that read nothing but shape and type of their operand: what they make is a constant."""
_INDEXING = frozenset({"__getitem__", "__setitem__", "index_put", "index_put_"})


def run(function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
    """Call ``function`` for shapes and types if any operand is without data, for real otherwise."""
    known = known_result(name, args, kwargs)
    if known is not None:
        return known
    if not any_meta((args, kwargs)):
        return function(*args, **kwargs)
    if name in ESCAPES or any(tensor.is_meta for tensor in sizing_operands(name, args, kwargs)):
        raise NeedsDataError(name)
    target: Any = args[0] if args else None
    if name in CREATION:
        like = _zeros(target) if name.endswith("_like") else target.new_empty(0, device="cpu")
        return function(like, *args[1:], **kwargs)
    if isinstance(target, Tensor) and not target.is_meta and writes(name):
        return function(*_mapped(args, _zeros), **_mapped(kwargs, _zeros))
    indexing = name in _INDEXING

    def convert(tensor: Tensor) -> Any:
        return _to_meta(tensor, as_index=indexing and tensor is not target)

    meta_args, meta_kwargs = _mapped(args, convert), _mapped(kwargs, convert)
    try:
        return function(*meta_args, **meta_kwargs)
    except NotImplementedError:
        # No shape rule for this op: run it on zeros and keep the shapes.
        result = function(*_mapped(meta_args, _zeros), **_mapped(meta_kwargs, _zeros))
        return _mapped(result, lambda tensor: tensor.to(META))


class WithoutData(TorchFunctionMode):
    """Calls of functions inside the block go to `run`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return what the function gives."""
        del types
        return run(func, spelling(func), args, kwargs or {})


class NeedsDataError(RuntimeError):
    """Something inside a leaf looks at values, which it was not given."""


def run_module(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Call a module for shapes and types; one that decides on values decides on zeros."""
    try:
        return module(*args, **kwargs)
    except NeedsDataError:
        return run_on_zeros(module, args, kwargs)


def run_on_zeros(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Call a copy of a module with zeros for everything that has no data, and return results without data."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_zeros(parameter.detach()), requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else _zeros(buffer)
    result = twin.cpu()(*_mapped(args, _zeros), **_mapped(kwargs, _zeros))
    return _mapped(result, lambda tensor: tensor.to(META))


def any_meta(value: Any) -> bool:
    """Tell whether a tensor without data stands anywhere inside ``value``."""
    if isinstance(value, Tensor):
        return value.is_meta
    if isinstance(value, (tuple, list)):
        return any(any_meta(item) for item in value)
    if isinstance(value, dict):
        return any(any_meta(item) for item in value.values())
    return isinstance(value, slice) and any_meta((value.start, value.stop, value.step))


def writes(name: str) -> bool:
    """Tell whether a function of this name changes its first argument."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__" or (name.startswith("__i") and name != "__invert__")


def _to_meta(tensor: Tensor, *, as_index: bool) -> Any:
    if tensor.is_meta:
        return tensor
    if as_index and tensor.dtype == torch.bool:
        positions = tensor.nonzero(as_tuple=True)
        return positions[0].to(META) if len(positions) == 1 else tuple(p.to(META) for p in positions)
    return tensor.to(META)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor


def _mapped(value: Any, convert: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return convert(value)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        items = [_mapped(item, convert) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: _mapped(item, convert) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(item, convert) for item in (value.start, value.stop, value.step)))
    return META if isinstance(value, torch.device) else value
