"""Axis rule of fused attention (O8)."""

from __future__ import annotations

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink, axis_rule
from torch_dag_pruning.axes.stand_in import Emptied
from torch_dag_pruning.rules.broadcasting import broadcast

_KEYS = "a fused softmax runs over the keys"


def uniform(graph: Emptied, vertex: InnerVertex, empty: set[int]) -> InnerVertex:
    """Replace empty queries and keys by zeros with a head dimension of 1.

    All scores are then 0, as in the masked graph, so the attention weights are uniform except where a mask applies.
    """
    for index in sorted(empty):
        module, likes = graph.constant(vertex.predecessors[index].name, vertex.name, 0.0, last=1)
        name = graph.dag.unique_name(f"{vertex.name}_{('query', 'key')[index]}")
        graph.dag.set_predecessor(vertex, index, graph.dag.add_vertex(name, module, likes))
    return vertex


@axis_rule("core.scaled_dot_product_attention", stand_in=uniform)
def scaled_dot_product_attention(ctx: Context) -> Relation:
    """Unify the head dimensions of queries and keys, mask the query along it, and freeze the keys (O8).

    The default scale ``head_dim ** -0.5`` is written into the configuration, so pruning the head does not change it.
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
    """Unify the batch and head axes; with ``enable_gqa`` the query heads are (key heads, queries of each)."""
    if not ctx.module.enable_gqa or query[-1].n == key[-1].n:
        return broadcast(ctx, [query, key])
    shared, each = ctx.reshape([query[-1]], [key[-1].n, -1])
    ctx.unify(shared, key[-1])
    return [*broadcast(ctx, [query[:-1], key[:-1]]), product(shared, each)]
