"""Smaller copies of modules: their configuration is rewritten and their tensors are sliced (R1)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from torch_dag_core.graph.builtin_ops import TensorHolder
from torch_dag_core.graph.values import Size
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.axes import Atom, Axis, Concat, Fixed, Product
from torch_dag_pruning.axes.relation import FromEnd, Relation
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.removal.kept import Kept

_AXES = (Fixed, Atom, Product, Concat)


@dataclass
class Rebuilder:
    """Builds the smaller version of modules; a module shared by several vertices is built once."""

    kept: Kept
    registry: Registry
    _built: dict[tuple[nn.Module, str], nn.Module] = field(default_factory=dict)

    def module(
        self, vertex: str, module: nn.Module, relation: Relation, operands: Sequence[Sequence[Axis]]
    ) -> nn.Module:
        """Return the module unchanged if nothing of it is removed, otherwise a smaller one.

        Args:
            vertex: Name of the vertex that calls the module.
            module: The module of the analysed graph.
            relation: Its relation: the axes of its tensors, and the configuration entries that are sizes.
            operands: The axes of each operand.

        Raises:
            RemovalError: the module has to change and has no codec, or a sliced tensor does not fit the new module.
        """
        tensors = tensors_by_name(module)
        sliced = [name for name in tensors if not self.kept.is_whole(relation.parameters.get(name, ()))]
        spec = self.registry.for_module(module)
        if spec is None or spec.codec is None:
            if sliced or relation.rewrite:
                message = f"vertex {vertex!r} cannot change size: its {type(module).__name__} has no codec"
                raise RemovalError(vertex, message)
            return module
        old = spec.codec.config(module)
        new = _Rewriting(vertex, self.kept, operands).config(old, relation.rewrite)
        if not sliced and new == old:
            return module
        key = (module, repr(sorted(new.items())))
        if key not in self._built:
            self._built[key] = self._filled(vertex, module, spec.codec.build(new), relation)
        return self._built[key]

    def _filled(self, vertex: str, old: nn.Module, new: nn.Module, relation: Relation) -> nn.Module:
        """Copy the kept part of the tensors and the training modes of ``old`` to ``new``."""
        wanted = tensors_by_name(new)
        for name, tensor in tensors_by_name(old).items():
            part = self.kept.take_learned(tensor, relation.parameters.get(name, ()))
            if name not in wanted or (part.shape != wanted[name].shape and not isinstance(new, TensorHolder)):
                shape = tuple(wanted[name].shape) if name in wanted else "nothing"
                message = f"vertex {vertex!r} keeps {tuple(part.shape)} of {name!r}, its new module wants {shape}"
                raise RemovalError(vertex, message)
            _put(new, name, part)
        modes = {path: part.training for path, part in old.named_modules()}
        for path, submodule in new.named_modules():
            submodule.training = modes.get(path, old.training)
        return new


def tensors_by_name(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module by name; a tied tensor appears under each of its names."""
    named = itertools.chain(
        module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    )
    return dict(named)


def _put(module: nn.Module, path: str, tensor: Tensor) -> None:
    parent, _, name = path.rpartition(".")
    owner = module.get_submodule(parent)
    setattr(owner, name, tensor)  # recurrent layers watch their attributes, to update their list of weights


@dataclass(frozen=True)
class _Rewriting:
    """Rewrites the configuration of one op: axes in it become the sizes that are left."""

    vertex: str
    kept: Kept
    operands: Sequence[Sequence[Axis]]

    def config(self, old: Mapping[str, Any], rewrite: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.value(value, rewrite.get(name, value)) for name, value in old.items()}

    def value(self, old: Any, template: Any) -> Any:
        """Return ``template`` with each axis replaced by its kept size; a `Size` is scaled accordingly."""
        if isinstance(template, _AXES):
            return self._number(old, template)
        if isinstance(template, FromEnd):
            return -self.kept.size(template.axis) or None  # nothing behind it: the slice is open
        if isinstance(template, Size):
            return self._scaled(old if isinstance(old, Size) else template, Fraction(1))
        if isinstance(template, slice):
            ends = ("start", "stop", "step")
            return slice(*(self.value(getattr(old, end, None), getattr(template, end)) for end in ends))
        if isinstance(template, (tuple, list)):
            olds = old if isinstance(old, (tuple, list)) and len(old) == len(template) else [None] * len(template)
            return tuple(self.value(o, t) for o, t in zip(olds, template, strict=True))
        return template

    def _number(self, old: Any, axis: Axis) -> Any:
        if isinstance(old, Size):
            return self._scaled(old, self.kept.ratio(axis))
        # -1 in a reshape means "the remaining elements", which holds after removal too.
        return -1 if type(old) is int and old == -1 else self.kept.size(axis)

    def _scaled(self, size: Size, ratio: Fraction) -> Size:
        """Return the `Size` whose value shrinks by ``ratio``, given that the operands that it reads shrink as well."""
        for operand, dim in size.dims:
            ratio /= self.kept.ratio(self.operands[operand][dim])
        return rescaled(self.vertex, size, ratio)


def rescaled(vertex: str, size: Size, ratio: Fraction) -> Size:
    """Return ``ratio`` times a size.

    Args:
        vertex: Name of the vertex that states the size, for the error message.
        size: The size before removal.
        ratio: The factor.

    Raises:
        RemovalError: ``ratio`` times the constant term of the size is not an integer.
    """
    factor, add = Fraction(size.num, size.den) * ratio, size.add * ratio
    if ratio == 1:
        return size
    if add.denominator != 1:
        message = f"vertex {vertex!r} cannot shrink the size {size} to {ratio} of it, because of the constant in it"
        raise RemovalError(vertex, message)
    return Size(size.dims, factor.numerator, factor.denominator, int(add))
