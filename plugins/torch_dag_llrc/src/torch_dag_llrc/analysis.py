"""The analysis of low-rank compression: from a graph to a report of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from torch_dag_core.algorithms.reports import Skipped
from torch_dag_core.analysis.vertex_facts import VertexFacts, flattened, vertex_facts
from torch_dag_core.errors import StubError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_llrc.config import LowRankConfig
from torch_dag_llrc.layers import LayerSearch
from torch_dag_llrc.report import LayerCandidate, LowRankReport
from torch_dag_llrc.schemes import LayerSizes, tables

_NAME = "low-rank"


def analyze_ranks(
    dag: DagModule, input_shape: Sequence[int] | None = None, config: LowRankConfig | None = None
) -> LowRankReport:
    """Return every layer that can be factored, with its cost at every rank; changes nothing.

    ``reachable_flops`` is the cost with every layer at its smallest allowed rank in its cheapest scheme.

    Args:
        dag: The graph; nested graphs in it are included.
        input_shape: Shape of one sample, without the batch dimension; None uses the example inputs of the graph.
        config: The settings; the defaults if None.

    Raises:
        StubError: a setting asks for something that does not exist yet.
    """
    require_graphs("analyze_ranks()", dag)
    config = config or LowRankConfig(keep_flops=1.0, training_steps=1)
    if config.cost != "flops":
        raise StubError(_NAME, "analyze", f"the cost {config.cost!r} of a layer; so far there is 'flops'")
    dag = flattened(dag)
    facts = vertex_facts(dag, input_shape)
    search = LayerSearch(dag, facts, config)
    fit, skipped = _split(search, facts)
    found = [_candidate(search, group, config) for group in _groups(fit, share=config.share_siblings)]
    worth = tuple(each for each in found if each.tables)
    flops = sum(facts.flops.values())
    return LowRankReport(
        algorithm=_NAME,
        flops=flops,
        reachable_flops=flops - sum(each.removable for each in worth),
        candidates=worth,
        skipped=(*skipped, *(_too_thin(each, config) for each in found if not each.tables)),
    )


def _split(search: LayerSearch, facts: VertexFacts) -> tuple[list[InnerVertex], list[Skipped]]:
    """Separate the layers that can be factored from those that cannot."""
    fit: list[InnerVertex] = []
    skipped: list[Skipped] = []
    for vertex in search.learned:
        reason = search.reason_to_skip(vertex)
        if reason is None:
            fit.append(vertex)
        elif facts.flops[vertex.name]:
            skipped.append(Skipped(vertex.name, facts.flops[vertex.name], reason))
    return fit, skipped


def _too_thin(candidate: LayerCandidate, config: LowRankConfig) -> Skipped:
    reason = f"no rank of at least {config.rank_multiple} in scheme {config.scheme!r} costs less than the layer"
    return Skipped(candidate.name, candidate.flops, reason)


def _groups(layers: Iterable[InnerVertex], *, share: bool) -> list[list[InnerVertex]]:
    """Group linear layers that read the same value if ``share`` is set; other layers are groups of one."""
    groups: dict[Vertex, list[InnerVertex]] = {}
    for vertex in layers:
        shares = share and type(vertex.module) is nn.Linear
        groups.setdefault(vertex.predecessors[0] if shares else vertex, []).append(vertex)
    return list(groups.values())


def _candidate(search: LayerSearch, group: Sequence[InnerVertex], config: LowRankConfig) -> LayerCandidate:
    """Return the cost of a group of layers at every rank, without tables if no rank saves FLOPs."""
    members = [search.sizes(vertex) for vertex in group]
    sizes = _stacked(members)
    least = {table.scheme: min(config.rank_multiple, table.max_rank) for table in tables(sizes, config.scheme)}
    paying = tuple(table for table in tables(sizes, config.scheme) if table.break_even >= least[table.scheme])
    cheapest = min((table.flops(least[table.scheme]) for table in paying), default=sizes.dense_flops)
    return LayerCandidate(
        name=" + ".join(vertex.name for vertex in group),
        kind=_KINDS[type(group[0].module)] if len(group) == 1 else "siblings",
        flops=sizes.dense_flops,
        removable=sizes.dense_flops - cheapest,
        layers=tuple(vertex.name for vertex in group),
        tables=paying,
        least_rank=least,
    )


def _stacked(members: Sequence[LayerSizes]) -> LayerSizes:
    """Return the sizes of layers with the same input, stacked into one layer."""
    if len(members) == 1:
        return members[0]
    return replace(
        members[0],
        outputs=sum(each.outputs for each in members),
        biased_outputs=sum(each.biased_outputs for each in members),
    )


_KINDS = {nn.Linear: "linear", nn.Conv2d: "conv"}
