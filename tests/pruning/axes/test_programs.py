"""Random programs of relations: each relation holds afterwards, in whatever order they came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_dag_pruning.axes import Axis, AxisSolver, Cause, Fixed, concat, product

LARGEST = 600
QUICK = settings(max_examples=250, suppress_health_check=list(HealthCheck))

Soft = Callable[[AxisSolver, Sequence[Axis]], Tensor]
Partition = Callable[[AxisSolver, Sequence[Axis]], list[object]]


@dataclass
class Relation:
    """The tensors of two lists of axes (by number) are the same, in a way named by `kind`."""

    kind: str
    whole: list[int]
    parts: list[int]


@dataclass
class Program:
    """Sizes of numbered axes, and relations between them."""

    sizes: list[int] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)

    def add(self, n: int) -> int:
        self.sizes.append(n)
        return len(self.sizes) - 1

    def relate(self, kind: str, whole: list[int], sizes: Sequence[int]) -> None:
        self.relations.append(Relation(kind, whole, [self.add(n) for n in sizes]))


@st.composite
def factorisations(draw: st.DrawFn, n: int) -> list[int]:
    sizes = []
    for _ in range(draw(st.integers(1, 3))):
        sizes.append(draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0])))
        n //= sizes[-1]
    return [*sizes, n]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    program = Program()
    for n in draw(st.lists(st.sampled_from([2, 3, 4, 6, 8, 12, 24]), min_size=2, max_size=4)):
        program.add(n)
    for _ in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["reshape", "cut", "cat", "product", "unify", "unify", "freeze"]))
        _extend(draw, program, kind)
    return program


def _extend(draw: st.DrawFn, program: Program, kind: str) -> None:
    several = st.lists(st.integers(0, len(program.sizes) - 1), min_size=1, max_size=3)
    chosen = draw(several)
    sizes = [program.sizes[i] for i in chosen]
    if math.prod(sizes) > LARGEST:
        return
    if kind == "reshape":
        program.relate(kind, chosen, draw(factorisations(math.prod(sizes))))
    elif kind == "product":
        program.relate("reshape", chosen, [math.prod(sizes)])
    elif kind == "cut":
        n = sizes[0]
        offsets = sorted(draw(st.sets(st.integers(1, n - 1), max_size=3))) if n > 1 else []
        ends = zip([0, *offsets], [*offsets, n], strict=True)
        program.relate(kind, chosen[:1], [end - start for start, end in ends])
    elif kind == "cat":
        program.relations.append(Relation("cut", [program.add(sum(sizes))], chosen))
    elif kind == "unify":
        same = [i for i, n in enumerate(program.sizes) if n == sizes[0]]
        program.relations.append(Relation(kind, chosen[:1], [draw(st.sampled_from(same))]))
    else:
        program.relations.append(Relation(kind, chosen[:1], []))


def _reshape(solver: AxisSolver, whole: list[Axis], parts: list[Axis], cause: Cause) -> None:
    made = solver.reshape(whole, [axis.n for axis in parts], cause)
    for axis, part in zip(made, parts, strict=True):
        solver.unify(part, axis, cause)


def _cut(solver: AxisSolver, whole: list[Axis], parts: list[Axis], cause: Cause) -> None:
    offsets = [sum(part.n for part in parts[:i]) for i in range(1, len(parts))]
    for axis, part in zip(solver.cut(whole[0], offsets, cause), parts, strict=True):
        solver.unify(part, axis, cause)


def _unify(solver: AxisSolver, whole: list[Axis], parts: list[Axis], cause: Cause) -> None:
    solver.unify(whole[0], parts[0], cause)


def _freeze(solver: AxisSolver, whole: list[Axis], _parts: list[Axis], cause: Cause) -> None:
    solver.freeze(whole[0], cause)


DO = {"reshape": _reshape, "cut": _cut, "unify": _unify, "freeze": _freeze}


def run(program: Program, order: Sequence[Relation]) -> tuple[AxisSolver, list[Axis]]:
    solver = AxisSolver()
    axes = [solver.atom(n) for n in program.sizes]
    for i, relation in enumerate(order):
        cause = Cause(f"v{i}", relation.kind, "test")
        DO[relation.kind](solver, [axes[j] for j in relation.whole], [axes[j] for j in relation.parts], cause)
    return solver, axes


def sides(relation: Relation, axes: list[Axis]) -> tuple[list[Axis], list[Axis]]:
    whole, parts = [axes[i] for i in relation.whole], [axes[i] for i in relation.parts]
    if relation.kind == "cut":
        return whole, [concat(*parts)]
    if relation.kind == "freeze":
        return whole, [Fixed(whole[0].n)]
    return whole, parts


@QUICK
@given(programs())
def test_every_relation_holds_afterwards(soft: Soft, program: Program) -> None:
    solver, axes = run(program, program.relations)
    for relation in program.relations:
        whole, parts = sides(relation, axes)
        torch.testing.assert_close(soft(solver, whole), soft(solver, parts))


@QUICK
@given(programs())
def test_held_expressions_keep_their_meaning(soft: Soft, program: Program) -> None:
    solver, axes = run(program, program.relations)
    resolved = [solver.find(axis) for axis in axes]
    assert [axis.n for axis in resolved] == program.sizes
    assert [solver.find(axis) for axis in resolved] == resolved
    whole = product(*axes[:2])
    torch.testing.assert_close(soft(solver, [whole]), soft(solver, axes[:2]))


@QUICK
@given(programs(), st.randoms(use_true_random=False))
def test_order_does_not_matter(partition: Partition, program: Program, random: object) -> None:
    """Where no factorisations conflict: a conflict freezes what it finds at that moment."""
    shuffled = list(program.relations)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = run(program, program.relations), run(program, shuffled)
    assume(not one[0].conflicts and not other[0].conflicts)
    assert partition(*one) == partition(*other)


@QUICK
@given(programs())
def test_relations_asserted_twice_change_nothing(partition: Partition, program: Program) -> None:
    once, twice = run(program, program.relations), run(program, program.relations * 2)
    assume(not twice[0].conflicts)
    assert partition(*once) == partition(*twice)
