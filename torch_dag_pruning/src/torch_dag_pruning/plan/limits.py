"""How many slots of each orbit may stay: what is held back, bounds, and multiples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.kinds import KINDS, orbit_kinds
from torch_dag_pruning.plan.selectors import Parts, Selector

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit

Bound: TypeAlias = "int | float | None"
Bounds: TypeAlias = "Mapping[str, tuple[Bound, Bound]] | Iterable[str]"
Multiples: TypeAlias = "int | Mapping[str, int] | Iterable[str]"
Selectors: TypeAlias = "Iterable[Selector] | Selector"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be pruned, and how far. Selectors are described in `torch_dag_pruning.plan.selectors`.

    Attributes:
        ignore: Selected vertices keep the sizes of what they read, hold and return: all slots of their orbits stay.
        only: If given, only orbits are pruned whose slots are all made by selected vertices.
        kinds: If given, only orbits of these kinds are pruned: ``"widths"``, ``"heads"``, ``"head_widths"``
            (a slot in every head) and ``"groups"``.
        bounds: The smallest and the largest number of slots to keep in the orbits that selected vertices make, by
            selector: ints are slots, floats are shares of the orbit, None is no bound. `of` also takes texts such as
            ``"layer1=0.5..0.9"`` or ``"layer1=8.."``.
        multiple_of: By selector, the number of kept slots is a multiple of this in the orbits of widths and head
            widths that selected vertices make and that have as many slots; under ``""``, in all that no other selector
            names. `of` also takes an int, for all, and texts such as ``"blocks.*.mlp=16"``.
    """

    ignore: tuple[Selector, ...] = ()
    only: tuple[Selector, ...] = ()
    kinds: tuple[str, ...] = ()
    bounds: Mapping[str, tuple[Bound, Bound]] = field(default_factory=dict)
    multiple_of: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, *, ignore: Selectors = (), only: Selectors = (), kinds: Iterable[str] | str = (), bounds: Bounds = (),
        multiple_of: Multiples = 1,
    ) -> Limits:  # fmt: skip
        """Return limits given in any of their forms: one selector or several, mappings or texts.

        Raises:
            PlanError: a text cannot be read, or a value is wrong.
        """
        return cls(
            ignore=_several(ignore), only=_several(only), kinds=(kinds,) if isinstance(kinds, str) else tuple(kinds),
            bounds=dict(_bounds(bounds)), multiple_of=_multiples(multiple_of),
        )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the kinds.

        Raises:
            PlanError: there is no such kind.
        """
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            message = f"there is no kind {unknown[0]!r} of orbits; there are {', '.join(map(repr, KINDS))}"
            raise PlanError(message)

    def widths(self, analysis: Analysis) -> list[Width]:
        """Return how many slots each orbit of a graph may keep.

        Raises:
            PlanError: a selector names nothing in the graph, bounds contradict each other, or nothing may be pruned.
        """
        bounds, multiples, held = self._by_orbit(analysis)
        widths = [
            _width(orbit, bounds.get(orbit.key, (None, None)), multiples.get(orbit.key, 1))
            if orbit.key not in held
            else Width(orbit.key, orbit.n, orbit.n, orbit.n, 1)
            for orbit in analysis.orbits
        ]
        if widths and len(held) == len(widths):
            message = f"{self._said()} leaves nothing to prune"
            raise PlanError(message)
        return widths

    def _by_orbit(self, analysis: Analysis) -> tuple[dict[str, tuple[Bound, Bound]], dict[str, int], set[str]]:
        """Return the bounds and multiples by orbit key, and the keys of the orbits of which every slot stays."""
        parts = Parts(analysis)
        bounds = {key: bound for name, bound in self.bounds.items() for key in parts.made("bounds", name)}
        multiples = self.multiple_of
        kinds = orbit_kinds(analysis) if self.kinds or multiples else {}
        rounded = {key for key, kind in kinds.items() if kind in ("widths", "head_widths")}
        steps = dict.fromkeys(rounded, multiples.get("", 1))
        for name, step in multiples.items():
            steps |= dict.fromkeys(parts.made("multiple_of", name) & rounded if name else (), step)
        return bounds, steps, self._held(analysis, parts, kinds)

    def _held(self, analysis: Analysis, parts: Parts, kinds: Mapping[str, str]) -> set[str]:
        held: set[str] = set()
        if self.only:
            chosen = set().union(*(parts.made("only", selector) for selector in self.only))
            held = {orbit.key for orbit in analysis.orbits} - chosen
        if self.kinds:
            held |= {key for key, kind in kinds.items() if kind not in self.kinds}
        return held.union(*(parts.touched("ignore", selector) for selector in self.ignore))

    def _said(self) -> str:
        given = {name: getattr(self, name) for name in ("ignore", "only", "kinds")}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if value)


@dataclass(frozen=True)
class Width:
    """How many slots an orbit may keep.

    Attributes:
        key: Of the orbit.
        n: Number of its slots.
        least: At least so many stay.
        most: At most so many stay.
        step: A multiple of this stays, unless all do.
    """

    key: str
    n: int
    least: int
    most: int
    step: int

    def allowed(self, count: int) -> int:
        """Return the smallest allowed number of slots that is not below ``count``, or the largest allowed one."""
        wanted = max(count, self.least)
        return min(self.most, math.ceil(wanted / self.step) * self.step)


def _width(orbit: Orbit, bound: tuple[Bound, Bound], step: int) -> Width:
    n, step = orbit.n, step if step <= orbit.n else 1
    least = max(1, orbit.minimum, _slots(bound[0], n, 0, math.ceil))
    least = min(n, math.ceil(least / step) * step)
    most = min(n, _slots(bound[1], n, n, math.floor))
    most = most if most == n else most // step * step
    if least > most:
        message = f"orbit {orbit.key!r} of {n} slots must keep at least {least} and at most {most}; widen its bounds"
        raise PlanError(message)
    return Width(orbit.key, n, least, most, step)


def _slots(bound: Bound, n: int, default: int, rounded: Callable[[float], int]) -> int:
    if bound is None:
        return default
    return bound if isinstance(bound, int) else rounded(round(bound * n, 9))


def _several(given: Selectors) -> tuple[Selector, ...]:
    return (given,) if isinstance(given, (str, type)) else tuple(given)


def _bounds(given: Bounds) -> Iterable[tuple[str, tuple[Bound, Bound]]]:
    entries = given.items() if isinstance(given, Mapping) else map(_read_bounds, _texts(given))
    for selector, pair in entries:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_bound, pair))):
            message = (
                f"bounds of {selector!r} must be the smallest and largest number of slots (ints) or share of them "
                f"(floats from 0 to 1), or None, got {pair!r}"
            )
            raise PlanError(message)
        yield selector, (pair[0], pair[1])


def _texts(given: Iterable[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _is_bound(value: object) -> bool:
    if value is None:
        return True
    return (type(value) is int and value >= 0) or (type(value) is float and 0.0 <= value <= 1.0)


def _read_bounds(text: str) -> tuple[str, tuple[Bound, Bound]]:
    selector, equals, bounds = text.rpartition("=")
    least, dots, most = bounds.partition("..")
    try:
        if equals and dots:
            return selector, (_number(least), _number(most))
    except ValueError:
        pass
    message = f"bounds are written SELECTOR=LEAST..MOST, such as 'layer1=0.5..0.9' or 'layer1=8..', got {text!r}"
    raise PlanError(message)


def _number(text: str) -> Bound:
    if not text.strip():
        return None
    return float(text) if "." in text else int(text)


def _multiples(given: Multiples) -> dict[str, int]:
    """Return multiples by selector, for all orbits under ``""``; those of 1 are left out there."""
    if isinstance(given, int):
        _require_multiple(given)
        return {"": given} if given > 1 else {}
    entries = given.items() if isinstance(given, Mapping) else map(_read_multiple, _texts(given))
    found = dict(entries)
    for step in found.values():
        _require_multiple(step)
    return found


def _read_multiple(text: str) -> tuple[str, int]:
    selector, _, number = text.rpartition("=")
    if not number.strip().isdigit():
        message = f"multiple_of is an integer, or written SELECTOR=INTEGER, such as 'blocks.*.mlp=16', got {text!r}"
        raise PlanError(message)
    return selector, int(number)


def _require_multiple(step: object) -> None:
    if type(step) is not int or step < 1:
        message = f"multiple_of must be at least 1, an integer, got {step!r}"
        raise PlanError(message)
