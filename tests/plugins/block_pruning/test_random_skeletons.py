"""Cones and deepest cuts of random graphs of numbers, against counting what is alive."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from torch_dag_block_pruning.skeleton import Cones, Cut, DeepestCut, Skeleton


@st.composite
def skeletons(draw):
    count = draw(st.integers(3, 14))
    operands = [()]
    for number in range(1, count):
        operand = st.integers(max(0, number - 5), number - 1)
        operands.append(tuple(draw(st.lists(operand, min_size=1, max_size=2))))
    roots = {count - 1, *draw(st.sets(st.integers(0, count - 1), max_size=1))}
    costs = tuple(draw(st.integers(0, 9)) for _ in range(count))
    return Skeleton(tuple(f"v{i}" for i in range(count)), tuple(operands), costs, frozenset(roots))


def edges(skeleton):
    return [
        Cut(number, index)
        for number, operands in enumerate(skeleton.operands)
        if len(set(operands)) == 2
        for index in (0, 1)
    ]


def alive(skeleton, cuts):
    """Collect what is needed, by walking from each root."""
    needed, stack = set(), list(skeleton.roots)
    while stack:
        number = stack.pop()
        if number not in needed:
            needed.add(number)
            kept = [o for i, o in enumerate(skeleton.operands[number]) if Cut(number, i) not in cuts]
            stack.extend(kept)
    return needed


def cost(skeleton, cuts):
    joins = {cut.join for cut in cuts}
    return sum(skeleton.flops[number] for number in alive(skeleton, cuts) - joins)


@given(skeletons(), st.randoms(use_true_random=False))
def test_remaining_counts_what_is_alive(skeleton, random):
    by_join = {cut.join: cut for cut in random.sample(edges(skeleton), len(edges(skeleton)) // 2)}
    cuts = list(by_join.values())
    assert skeleton.remaining(cuts) == cost(skeleton, cuts)


@given(skeletons())
def test_cones_hold_what_dies(skeleton):
    cones = Cones(skeleton, edges(skeleton))
    everything = alive(skeleton, [])
    for edge in edges(skeleton):
        dead = everything - alive(skeleton, [edge]) if edge.join in everything else set()
        assert cones.flops[edge] == sum(skeleton.flops[number] for number in dead)
        assert cones.members(edge) == sorted(dead)


@settings(max_examples=50)
@given(skeletons())
def test_deepest_cuts_are_legal_and_each_of_them_helps(skeleton):
    chosen = DeepestCut(skeleton).run(edges(skeleton))
    assert len({cut.join for cut in chosen}) == len(chosen)
    for cut in chosen:
        fewer = [other for other in chosen if other != cut]
        assert skeleton.remaining(chosen) <= skeleton.remaining(fewer)


@st.composite
def chains_of_blocks(draw):
    """Blocks one after the other, each a fork, two chains, and a join; a chain may be empty or hold a block."""
    operands, costs = [()], [0]

    def vertex(*reads):
        operands.append(reads)
        costs.append(draw(st.integers(0, 9)))
        return len(operands) - 1

    def block(fork, depth):
        sides = []
        for side in range(2):
            end = fork if side else vertex(fork)
            for _ in range(draw(st.integers(0, 2))):
                nests = depth < 2 and draw(st.booleans())
                end = block(end, depth + 1) if nests else vertex(end)
            sides.append(end)
        return vertex(*sides)

    end = 0
    for _ in range(draw(st.integers(1, 2))):
        end = vertex(block(end, 1))
    return Skeleton(tuple(f"v{i}" for i in range(len(operands))), tuple(operands), tuple(costs), frozenset({end}))


@settings(max_examples=60)
@given(chains_of_blocks())
def test_deepest_cuts_are_the_best_of_all_where_blocks_nest(skeleton):
    joins = [number for number, operands in enumerate(skeleton.operands) if len(operands) == 2][:8]
    legal = [Cut(join, index) for join in joins for index in (0, 1)]
    choices = itertools.product(*([None, Cut(join, 0), Cut(join, 1)] for join in joins))
    best = min(skeleton.remaining([cut for cut in choice if cut]) for choice in itertools.islice(choices, 3**8))
    assert skeleton.remaining(DeepestCut(skeleton).run(legal)) == best
