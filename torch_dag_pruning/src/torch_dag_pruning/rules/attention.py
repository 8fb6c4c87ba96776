"""Fused attention."""

from __future__ import annotations

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink, axis_rule
from torch_dag_pruning.axes.stand_in import Emptied
from torch_dag_pruning.rules.broadcasting import broadcast

_KEYS = "a fused softmax runs over the keys"


def uniform(graph: Emptied, vertex: InnerVertex, empty: set[int]) -> InnerVertex:
    """Compare zeros with zeros where nothing is left of queries and keys: all weights are equal, masks apart."""
    for index in sorted(empty):
        module, likes = graph.constant(vertex.predecessors[index].name, vertex.name, 0.0, last=1)
        name = graph.dag.unique_name(f"{vertex.name}_{('query', 'key')[index]}")
        graph.dag.set_predecessor(vertex, index, graph.dag.add_vertex(name, module, likes))
    return vertex


@axis_rule("core.scaled_dot_product_attention", stand_in=uniform)
def scaled_dot_product_attention(ctx: Context) -> Relation:
    """Contract queries with keys over the head, then weights with values over the keys, which stay.

    The default scale is a function of the head's size; it is written out, so that it does not change.
    """
    query, key, value, *masks = ctx.inputs
    head: Axis = query[-1]
    ctx.unify(head, key[-1])
    ctx.unify(key[-2], value[-2])
    ctx.freeze([key[-2]], _KEYS)
    if ctx.module.is_causal:
        ctx.freeze([query[-2]], "causal attention compares positions")
    batch = _batch(ctx, query[:-2], broadcast(ctx, [key[:-2], value[:-2]]))
    for mask in masks:
        broadcast(ctx, [[*batch, query[-2], key[-2]], mask])
    scale = ctx.module.scale
    rewrite = {"scale": query[-1].n ** -0.5 if scale is None else scale}
    return Relation([[*batch, query[-2], value[-1]]], (Sink(0, (len(query) - 1,), (head,)),), rewrite=rewrite)


def _batch(ctx: Context, query: Axes, key: Axes) -> Axes:
    """Tie batch and heads; grouped queries are (key heads, queries of each)."""
    if not ctx.module.enable_gqa or query[-1].n == key[-1].n:
        return broadcast(ctx, [query, key])
    shared, each = ctx.reshape([query[-1]], [key[-1].n, -1])
    ctx.unify(shared, key[-1])
    return [*broadcast(ctx, [query[:-1], key[:-1]]), product(shared, each)]
