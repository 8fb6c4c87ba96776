"""Equal random numbers for the graphs of a proof, whose ops may draw in evaluation too."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis, Fixed
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.removal.kept import Kept

Call = Callable[[InnerVertex, tuple[Any, ...]], Any]

_UNTAGGED = (torch.ops.aten.binomial.default,)
"""Ops that draw although torch does not tag them as such."""


@dataclass
class Draws:
    """Random numbers that one graph draws, and other graphs draw again.

    The draws of a vertex depend on its name alone, so graphs with equal shapes draw equal numbers. A smaller graph
    cannot: it gets the kept slots of what the first graph drew at full size.

    Attributes:
        kept: The kept slots of any axis.
        axes_of: Returns the axes of each result of a vertex, by the name of the vertex.
    """

    kept: Kept
    axes_of: Callable[[str], Sequence[Sequence[Axis]]]
    _drawn: dict[str, list[Tensor]] = field(default_factory=dict)

    def recorded(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        """Call a vertex with seeded draws, and store them for `repeated`."""
        drawn: list[Tensor] = []
        with _Drawing(vertex.name, lambda tensor: drawn.append(tensor.clone())):
            value = vertex.module(*operands)
        if drawn:
            self._drawn[vertex.name] = drawn
        return value

    def repeated(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        """Call a vertex of a smaller graph, which gets the kept slots of the stored draws, and forget these.

        Raises:
            RemovalError: a draw inside the op has a size that the result does not have, so its slots are unknown.
        """
        left = iter(self._drawn.pop(vertex.name, ()))
        with _Drawing(vertex.name, lambda tensor: self._replace(vertex.name, tensor, next(left, None))):
            return vertex.module(*operands)

    def seeded(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        """Call a vertex with seeded draws."""
        with _Drawing(vertex.name, lambda _: None):
            return vertex.module(*operands)

    def _replace(self, name: str, drawn: Tensor, whole: Tensor | None) -> None:
        if whole is None:
            return
        part: Tensor | None = whole
        if whole.shape != drawn.shape:
            axes = _aligned(whole, self.axes_of(name))
            part = None if axes is None else self.kept.take(whole, axes)
        if part is None or part.shape != drawn.shape:
            message = (
                f"vertex {name!r} draws random numbers of shape {tuple(whole.shape)}, of which the removed graph draws "
                f"{tuple(drawn.shape)}; pass verify=False, or keep all slots of the orbits that it reads"
            )
            raise RemovalError(name, message)
        drawn.copy_(part)


def _aligned(drawn: Tensor, results: Sequence[Sequence[Axis]]) -> list[Axis] | None:
    """Return the axes of a draw that has the sizes of a result, or 1 where it is broadcast; None for any other."""
    for axes in results:
        if drawn.dim() == len(axes) and all(n in (1, axis.n) for n, axis in zip(drawn.shape, axes, strict=True)):
            return [Fixed(1) if n == 1 else axis for n, axis in zip(drawn.shape, axes, strict=True)]
    return None


class _Drawing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Seeds torch's generators before the first draw in a block, and passes every drawn tensor on."""

    def __init__(self, name: str, pass_on: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed: int | None = zlib.crc32(name.encode())
        self._pass_on = pass_on

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the op; some ops are only suspected of drawing, so the state of the generators decides."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags and func not in _UNTAGGED:
            return func(*args, **kwargs)
        if self._seed is not None:
            torch.manual_seed(self._seed)
            self._seed = None
        before = _states(args)
        result = func(*args, **kwargs)
        if any(not torch.equal(a, b) for a, b in zip(before, _states(args), strict=True)):
            for tensor in _tensors(result):
                self._pass_on(tensor)
        return result


def _states(args: Any) -> list[Tensor]:
    """Return the state of the generator of every device that may be drawn on."""
    devices = {tensor.device for tensor in _tensors(args)} | _accelerators()
    modules = ((device, torch.get_device_module(device)) for device in devices if device.type != "cpu")
    return [torch.get_rng_state(), *(module.get_rng_state(device) for device, module in modules)]


def _accelerators() -> set[torch.device]:
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {torch.device("cuda", torch.cuda.current_device())} if used else set()


def _tensors(value: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


@contextmanager
def own_random_state(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put torch's random state back at the end of the block, on the CPU and on the devices of the tensors."""
    devices = sorted({tensor.device for tensor in tensors if tensor.device.type != "cpu"}, key=str)
    kind = devices[0].type if devices else "cuda"
    with torch.random.fork_rng(devices=devices, device_type=kind):
        yield
