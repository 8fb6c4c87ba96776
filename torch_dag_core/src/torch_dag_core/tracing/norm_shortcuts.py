"""Normalisations and other calls that keep the shape of their operand: what is known of them without running them."""

from __future__ import annotations

from torch import Tensor

from torch_dag_core.graph.nested import leaves
from torch_dag_core.tracing.recording import Live


def along(place: int, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow what keeps the shape along dimensions that it is given from ``place`` on."""
    x, others = args[0], {key: value for key, value in kwargs.items() if key not in ("_stacklevel", "dtype")}
    given = [dim for dim in leaves((args[place:], others)) if dim is not None]
    if not isinstance(x, Tensor) or kwargs.get("dtype") is not None:
        return None
    places = {dim % x.dim() for dim in given if isinstance(dim, int) and -x.dim() <= dim < x.dim()}
    fits = len(places) == len(given) and (place == 1 or len(given) == len(leaves(args[1])))
    return x.clone() if fits and given else None


def of_channels(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow a norm with a learned number or a statistic for each channel."""
    x = args[0]
    if not isinstance(x, Tensor) or x.dim() < 2 or x.numel() <= x.shape[0] * x.shape[1]:
        return None  # torch may want more than one value for each channel
    others = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, Tensor)]
    return x.clone() if all(other.shape == x.shape[1:2] for other in others) else None


def of_groups(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow a norm over groups of channels."""
    x, groups = args[0], args[1] if len(args) > 1 else kwargs.get("num_groups")
    if not isinstance(x, Tensor) or x.dim() < 2 or not isinstance(groups, int) or groups < 1 or x.shape[1] % groups:
        return None
    return of_channels(args, kwargs)


def of_features(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow a norm over the last dimensions, whose sizes it is given."""
    x, sizes = args[0], args[1] if len(args) > 1 else kwargs.get("normalized_shape")
    if not isinstance(x, Tensor) or not isinstance(sizes, (tuple, list)) or not 0 < len(sizes) <= x.dim():
        return None
    others = [value for value in (*args[2:], *kwargs.values()) if isinstance(value, Tensor)]
    shapes = (tuple(sizes), *(tuple(other.shape) for other in others))
    return x.clone() if all(shape == tuple(x.shape[-len(sizes) :]) for shape in shapes) else None
