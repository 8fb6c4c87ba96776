"""What torch-dag-pruning noted in a graph's provenance, checked, since it comes from a file of anybody.

The entries are ``removals``, a tuple with a dictionary for each removal of channels, and ``recovery``, a dictionary
about the last repair of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from torch_dag_hub.errors import HubError

T = TypeVar("T")


@dataclass(frozen=True)
class Proof:
    """The comparison of a smaller graph with the masked one, at every vertex."""

    dtype: str
    worst: float
    vertex: str
    vertices: int
    equal: int
    effect: float

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Return a checked entry."""
        return cls(
            _text(entry["dtype"]), _number(entry["worst"]), _text(entry["vertex"]), _count(entry["vertices"]),
            _count(entry["equal"]), _number(entry["effect"]),
        )  # fmt: skip


@dataclass(frozen=True)
class Removal:
    """One removal of channels.

    Attributes:
        widths: Slots that are left and slots that there were, of orbits that lost some; at most as many as were noted.
        changed: How many orbits lost slots.
        orbits: How many orbits there were.
        inputs: Shapes of the inputs that ``flops`` is for.
        flops: FLOPs of one sample, before and after.
        parameters: Before and after.
        versions: Of the libraries, by name.
        proof: None if none was made.
    """

    widths: Mapping[str, tuple[int, int]]
    changed: int
    orbits: int
    inputs: tuple[tuple[int, ...], ...]
    flops: tuple[int, int]
    parameters: tuple[int, int]
    versions: Mapping[str, str]
    proof: Proof | None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Return a checked entry."""
        plan, costs = entry["plan"], entry["costs"]
        return cls(
            widths={_text(key): _pair(sizes) for key, sizes in plan["widths"].items()},
            changed=_count(plan["changed"]),
            orbits=_count(plan["orbits"]),
            inputs=tuple(tuple(map(_count, shape)) for shape in entry["inputs"]),
            flops=_pair(costs["flops"]),
            parameters=_pair(costs["parameters"]),
            versions={_text(name): _text(version) for name, version in entry["versions"].items()},
            proof=Proof.read(entry["proof"]) if "proof" in entry else None,
        )


@dataclass(frozen=True)
class Recovery:
    """The repair of the weights after the last removal; errors are of the outputs, relative to those before pruning."""

    method: str
    samples: int
    error_before: float
    error_after: float
    layers: int
    skipped: int

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Return a checked entry; those of the first versions do not say how many layers were repaired."""
        return cls(
            _text(entry["method"]), _count(entry["samples"]), _number(entry["error_before"]),
            _number(entry["error_after"]), _count(entry.get("repaired", len(entry["layers"]))), len(entry["skipped"]),
        )  # fmt: skip


def removals(provenance: Mapping[str, Any]) -> tuple[Removal, ...]:
    """Return what was noted about removals, in their order.

    Raises:
        HubError: the entry has another form than torch-dag-pruning gives it.
    """
    return _read("removals", provenance, lambda entries: tuple(map(Removal.read, entries))) or ()


def recovery(provenance: Mapping[str, Any]) -> Recovery | None:
    """Return what was noted about the last repair, None if there was none.

    Raises:
        HubError: the entry has another form than torch-dag-pruning gives it.
    """
    return _read("recovery", provenance, Recovery.read)


def _read(name: str, provenance: Mapping[str, Any], read: Callable[[Any], T]) -> T | None:
    if name not in provenance:
        return None
    try:
        return read(provenance[name])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        message = (
            f"dag.provenance[{name!r}] has another form than torch-dag-pruning gives it ({type(error).__name__}: "
            f"{error}); delete the entry, or upgrade torch-dag-hub"
        )
        raise HubError(message) from error


def _text(value: Any) -> str:
    return _expected(value, str)


def _count(value: Any) -> int:
    return _expected(value, int)


def _number(value: Any) -> float:
    return float(value) if type(value) is int else _expected(value, float)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return _count(first), _count(second)


def _expected(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        message = f"{value!r:.60} is no {kind.__name__}"
        raise TypeError(message)
    return value
