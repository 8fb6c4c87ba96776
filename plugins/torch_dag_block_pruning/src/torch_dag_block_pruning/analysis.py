"""The analysis of block pruning: from a graph to a report of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch_dag_block_pruning.candidates import CutSearch, LegalCut
from torch_dag_block_pruning.config import BlockPruningConfig
from torch_dag_block_pruning.report import BlockCandidate, BlockReport
from torch_dag_block_pruning.skeleton import Cones, Cut, DeepestCut, Skeleton
from torch_dag_core.analysis.vertex_facts import flattened, vertex_facts
from torch_dag_core.errors import StubError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs

_NAME = "block-pruning"


def analyze_blocks(
    dag: DagModule, input_shape: Sequence[int] | None = None, config: BlockPruningConfig | None = None
) -> BlockReport:
    """Return every allowed cut with what it removes, and the cuts that leave the fewest FLOPs; changes nothing.

    ``reachable_flops`` is what remains after the latter. It is optimal if blocks are nested or follow one another, as
    in residual networks and transformers. If branches of different joins share vertices, fewer FLOPs may be possible.

    Args:
        dag: The graph; nested graphs in it are included.
        input_shape: Shape of one sample, without the batch dimension; None uses the example inputs of the graph.
        config: The settings; by default, all operands of sums are candidates.

    Raises:
        StubError: a setting asks for something that does not exist yet.
    """
    require_graphs("analyze_blocks()", dag)
    config = config or BlockPruningConfig(keep_flops=1.0, training_steps=1)
    _refuse_missing(config)
    dag = flattened(dag)
    facts = vertex_facts(dag, input_shape)
    skeleton = Skeleton.of(dag, facts.flops)
    legal = tuple(CutSearch(dag, facts.values, config).run())
    candidates, cuts = _candidates(skeleton, legal)
    deepest = _deepest(skeleton, candidates, cuts, config.max_removed)
    return BlockReport(
        algorithm=_NAME,
        flops=skeleton.remaining(),
        reachable_flops=skeleton.remaining(cuts[name] for name in deepest),
        candidates=candidates,
        deepest=deepest,
        skeleton=skeleton,
    )


def _refuse_missing(config: BlockPruningConfig) -> None:
    if config.cost != "flops":
        raise StubError(_NAME, "analyze", f"the cost {config.cost!r} of a vertex; so far there is 'flops'")
    if "span" in config.units:
        raise StubError(_NAME, "analyze", "the search for spans; so far there are 'residual' and 'gate' units")


def _candidates(skeleton: Skeleton, legal: Iterable[LegalCut]) -> tuple[tuple[BlockCandidate, ...], dict[str, Cut]]:
    number = {name: i for i, name in enumerate(skeleton.names)}
    cuts = {Cut(number[each.join.name], each.operand): each for each in legal}
    cones = Cones(skeleton, cuts)
    found = tuple(_candidate(skeleton, cones, cut, each) for cut, each in cuts.items())
    return found, {each.name: cut for each, cut in zip(found, cuts, strict=True)}


def _candidate(skeleton: Skeleton, cones: Cones, cut: Cut, legal: LegalCut) -> BlockCandidate:
    flops = cones.flops[cut] + skeleton.flops[cut.join]
    return BlockCandidate(
        name=f"{legal.join.name}[{legal.operand}]",
        kind=legal.kind,
        flops=flops,
        removable=flops,
        join=legal.join.name,
        operand=legal.operand,
        source=legal.join.predecessors[legal.operand].name,
        vertices=tuple(skeleton.names[number] for number in cones.members(cut)),
    )


def _deepest(
    skeleton: Skeleton, candidates: Iterable[BlockCandidate], cuts: dict[str, Cut], limit: int | None
) -> tuple[str, ...]:
    """Return the names of the cuts that leave the fewest FLOPs; with a limit, those that save most on their own."""
    worth = {cuts[each.name]: each.removable for each in candidates}
    names = {cut: name for name, cut in cuts.items()}
    chosen = DeepestCut(skeleton).run(worth)
    ranked = sorted(chosen, key=lambda cut: -worth[cut])[:limit]
    return tuple(names[cut] for cut in sorted(ranked))
