"""The `DagModule`: a graph that runs as an `nn.Module`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_dag_core.graph import checkpoint_keys
from torch_dag_core.graph.program import Forward, compile_forward
from torch_dag_core.graph.surgery import Surgery
from torch_dag_core.graph.text import summarize, to_text
from torch_dag_core.graph.vertex import InnerVertex, Vertex

if TYPE_CHECKING:
    from torch import nn

    from torch_dag_core.plugins.registry import Registry


class DagModule(Surgery):
    """A model as one directed acyclic graph of modules.

    Called as the model it was made from: ``forward`` has the source model's parameters, so that
    ``torch.export.export(dag, (x,), dynamic_shapes={"x": {0: batch}})`` names them as it would for the model.
    ``state_dict()`` has the source model's own keys wherever a module was kept as it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self._programs: dict[bool, Callable[..., Any]] = {}
        self._calls: tuple[nn.Module, ...] = ()
        self._prepared_version = -1
        self.register_state_dict_post_hook(checkpoint_keys.to_source)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(checkpoint_keys.from_source)  # type: ignore[no-untyped-call]

    forward = Forward()

    def _program(self) -> Callable[..., Any]:
        """Return the generated function that the graph runs in its present mode, bound to the graph."""
        self._prepare(self._version)
        return self._programs[self.training]

    def _prepare(self, version: int) -> None:
        """Generate the code of `forward` anew after an edit. O(n), else O(1)."""
        if self._prepared_version == version:
            return
        shared = self._training_output is None and not any(
            getattr(vertex.module, "has_modes", False) for vertex in self.inner_vertices
        )
        programs = {False: compile_forward(self, training=False)}
        programs[True] = programs[False] if shared else compile_forward(self, training=True)
        self._programs = programs
        self._calls = tuple(vertex.module for vertex in self.inner_vertices)
        self._prepared_version = version

    # torch.compile runs this while it compiles instead of tracing it, and guards on the version; this is what
    # torch.compiler.assume_constant_result sets, which would import all of torch._dynamo.
    _prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]

    # Walking ---------------------------------------------------------------------------------------------------

    def traverse(self, *, nested: bool = True) -> Iterator[Vertex]:
        """Iterate over the vertices in topological order, entering nested graphs after their vertex."""
        stack: list[Iterator[Vertex]] = [iter(self.vertices)]
        while stack:
            vertex = next(stack[-1], None)
            if vertex is None:
                stack.pop()
                continue
            yield vertex
            if nested and isinstance(vertex, InnerVertex) and isinstance(vertex.module, DagModule):
                stack.append(iter(vertex.module.vertices))

    def clone(self) -> DagModule:
        """Return an independent deep copy, on the same devices. O(size)."""
        return copy.deepcopy(self)

    # Text and files --------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return a table: vertices by op, parameters, inputs and assumptions."""
        return summarize(self)

    def __str__(self) -> str:
        return to_text(self)

    def save(self, path: str | Path, *, registry: Registry | None = None) -> None:
        """Write the graph and its weights to one safetensors file; see `torch_dag_core.save`."""
        from torch_dag_core.serialization import save

        save(self, path, registry=registry)

    @staticmethod
    def load(path: str | Path, *, registry: Registry | None = None, atomic_modules: tuple[type, ...] = ()) -> DagModule:
        """Read a graph written by `save`; see `torch_dag_core.load`."""
        from torch_dag_core.serialization import load

        return load(path, registry=registry, atomic_modules=atomic_modules)

    # Copying ---------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Store the graph flat: a chain of thousands of vertices must not recurse."""
        hidden = {
            "_vertices", "_folders", "_journal", "_owners", "_output", "_training_output", "_order",
            "_programs", "_calls",
        }  # fmt: skip
        state = {key: value for key, value in self.__dict__.items() if key not in hidden}
        position = {vertex: i for i, vertex in enumerate(self._vertices.values())}
        state["_flat"] = (
            [
                (v.name, getattr(v, "module", None), [position[p] for p in v.predecessors])
                for v in self._vertices.values()
            ],
            [(o.structure, [position[p] for p in o.predecessors]) for o in self.output_vertices],
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the vertices from their flat form."""
        vertices, outputs = state.pop("_flat")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._reset()
        self._programs, self._calls, self._prepared_version = {}, (), -1
        built: list[Vertex] = []
        for name, module, _ in vertices:
            if module is None:
                built.append(self._adopt_input(name))
            else:
                built.append(self._adopt_inner(name, module))
        self._adopt_registrations()
        for vertex, (_, _, predecessors) in zip(built, vertices, strict=True):
            if isinstance(vertex, InnerVertex):
                self._connect(vertex, [built[position] for position in predecessors])
        for training_only, (structure, positions) in enumerate(outputs):
            self.set_outputs(structure, [built[p] for p in positions], training_only=bool(training_only))
