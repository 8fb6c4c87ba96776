"""Running a call without data: whatever depends on inputs or parameters lives on the meta device.

Constants (buffers and what is computed from them alone) stay real, so that masks, index tables and decisions
taken on them keep their values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.tracing.names import ESCAPES, sizing_operands, spelling
from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.shortcuts import known_result

Function: TypeAlias = Callable[..., Any]
"""A torch function; torch gives most of them no types."""
META = torch.device("meta")
_CPU = torch.device("cpu")
CREATION = frozenset({"new_zeros", "new_ones", "new_full", "new_tensor", "zeros_like", "ones_like", "full_like"})
"""Functions that read nothing but shape and type of their operand: what they make is a constant."""
_INDEXING = frozenset({"__getitem__", "__setitem__", "index_put", "index_put_"})


def run(function: Function, name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
    """Call ``function`` for shapes and types if any operand is without data, for real otherwise."""
    result: Live = known_result(name, args, kwargs)
    if result is not None:
        return result
    target = args[0] if args else None
    if not any_meta(args, kwargs):
        result = function(*args, **kwargs)
    elif name in ESCAPES or any(tensor.is_meta for tensor in sizing_operands(name, args, kwargs)):
        raise NeedsDataError(name)
    elif name in CREATION and isinstance(target, Tensor):
        like = _zeros(target) if name.endswith("_like") else target.new_empty(0, device="cpu")
        result = function(like, *args[1:], **kwargs)
    elif isinstance(target, Tensor) and not target.is_meta and writes(name):
        result = function(*_mapped(args, _zeros), **_mapped(kwargs, _zeros))
    else:
        result = _run_on_meta(function, args, kwargs, mask_target=target if name in _INDEXING else None)
    return result


def _run_on_meta(
    function: Function, args: tuple[Live, ...], kwargs: dict[str, Live], *, mask_target: Live
) -> Live:  # fmt: skip
    """Call a function with all tensors on the meta device; masks of ``mask_target`` become positions."""

    def convert(tensor: Tensor) -> Live:
        return _to_meta(tensor, as_index=mask_target is not None and tensor is not mask_target)

    is_ready = all(map(_is_on_meta, leaves((args, kwargs))))
    meta_args, meta_kwargs = (args, kwargs) if is_ready else (_mapped(args, convert), _mapped(kwargs, convert))
    try:
        result: Live = function(*meta_args, **meta_kwargs)
    except NotImplementedError:
        # No shape rule for this op: run it on zeros and keep the shapes.
        result = _mapped(function(*_mapped(meta_args, _zeros), **_mapped(meta_kwargs, _zeros)), _without_data)
    return result


class WithoutData(TorchFunctionMode):
    """Calls of functions inside the block go to `run`."""

    def __torch_function__(
        self, func: Function, types: object, args: tuple[Live, ...] = (), kwargs: dict[str, Live] | None = None
    ) -> Live:
        """Return what the function gives."""
        del types
        return run(func, spelling(func), args, kwargs or {})


class NeedsDataError(RuntimeError):
    """Something inside a leaf looks at values, which it was not given."""


def run_module(module: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
    """Call a module for shapes and types; one that decides on values decides on zeros."""
    try:
        result: Live = module(*args, **kwargs)
    except NeedsDataError:
        result = run_on_zeros(module, args, kwargs)
    return result


def run_on_zeros(
    module: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live], device: torch.device = _CPU
) -> Live:  # fmt: skip
    """Call a copy of a module with zeros for everything that has no data, and return results without data."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_zeros(parameter.detach()), requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else _zeros(buffer)
    args, kwargs = _mapped((args, kwargs), lambda tensor: _zeros(tensor).to(device))
    result: Live = _mapped(twin.to(device)(*args, **kwargs), _without_data)
    return result


def any_meta(*values: Live) -> bool:
    """Tell whether a tensor without data stands anywhere inside nested containers."""
    return any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in leaves(values))


def writes(name: str) -> bool:
    """Tell whether a function of this name changes its first argument."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__" or (name.startswith("__i") and name != "__invert__")


def _to_meta(tensor: Tensor, *, as_index: bool) -> Live:
    if tensor.is_meta:
        return tensor
    if as_index and tensor.dtype == torch.bool:
        positions = tensor.nonzero(as_tuple=True)
        return positions[0].to(META) if len(positions) == 1 else tuple(p.to(META) for p in positions)
    return tensor.to(META)


def _is_on_meta(leaf: Live) -> bool:
    """Tell whether `_mapped` would leave an argument as it is when it moves tensors to the meta device."""
    return leaf.is_meta if isinstance(leaf, Tensor) else not isinstance(leaf, torch.device)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor


def _without_data(tensor: Tensor) -> Tensor:
    return tensor.to(META)


def _mapped(value: Any, convert: Callable[[Tensor], Live]) -> Any:
    """Return nested values with every tensor converted, and the meta device in place of any other."""

    def replace(leaf: Live) -> Live:
        if isinstance(leaf, Tensor):
            return convert(leaf)
        return META if isinstance(leaf, torch.device) else leaf

    return map_leaves(value, replace)
