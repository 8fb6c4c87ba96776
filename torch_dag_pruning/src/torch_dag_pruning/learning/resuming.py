"""Biases that a repair adds to a cut graph: other processes, and a graph cut again from a checkpoint, need them too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.loading import default_registry
from torch_dag_pruning.learning.sharding import replicated
from torch_dag_pruning.processes import copy_first_, is_first, of_first
from torch_dag_pruning.recovery.placing import with_bias


def added_biases(before: DagModule, after: DagModule) -> dict[str, int]:
    """Return the sizes of the biases that only the second graph has, by the name of their vertex."""
    old = {name for name, _ in before.named_parameters(remove_duplicate=False)}
    return {
        name.removesuffix(".bias"): parameter.numel() for name, parameter in after.named_parameters() if name not in old
    }


def add_biases(dag: DagModule, sizes: Mapping[str, int]) -> DagModule:
    """Give the modules of some vertices biases of zeros, in place, and return the graph."""
    registry = default_registry()
    for name, size in sizes.items():
        vertex = dag.get_vertex_by_name(name)
        assert isinstance(vertex, InnerVertex)
        old, new = vertex.module, with_bias(vertex.module, size, registry)
        for caller in [each for each in dag.inner_vertices if each.module is old]:
            dag.replace_module(caller, new)
    return dag


def of_first_process(removed: DagModule, repair: Callable[[DagModule], DagModule]) -> tuple[DagModule, dict[str, int]]:
    """Return what ``repair`` makes of a cut graph in the process of rank 0, in all of them, and `added_biases`."""
    network = repair(removed) if is_first() else removed
    added = of_first(added_biases(removed, network))
    if not is_first():
        network = add_biases(removed, added)
    copy_first_(replicated(network))
    return network, added
