"""From a model and example inputs to a verified `DagModule`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from torch_dag_core.checkpoint_keys import UNUSED
from torch_dag_core.conversion.assumptions import assumptions
from torch_dag_core.conversion.builder import Builder
from torch_dag_core.conversion.emission import Emission
from torch_dag_core.conversion.example_inputs import ExampleInputs, guess
from torch_dag_core.conversion.joining import BATCHES, SizeError, Sizes, keep_unfolded, merge_modes, same_calls
from torch_dag_core.conversion.normalizers.promotion import possible_owners
from torch_dag_core.dag import DagModule
from torch_dag_core.errors import TraceError
from torch_dag_core.inputs import InputSpec, TensorSpec
from torch_dag_core.conversion.hierarchy import nest_scopes
from torch_dag_core.registry import qualified_name
from torch_dag_core.tracing.trace import LEAF, THROUGH, Trace, Treatment, trace

if TYPE_CHECKING:
    from torch_dag_core.registry import Registry


def build_from_unstructured_module(
    model: nn.Module, example_inputs: Any = None, *, atomic_modules: Collection[type[nn.Module]] = (),
    keep_hierarchy: bool = False, registry: Registry | None = None,
) -> DagModule:  # fmt: skip
    """Convert a model into one graph that computes the same, in evaluation and in training.

    The model is run a few times without data, and left as it was; the graph owns copies of its parameters. The
    batch size is free in the result; image sizes are where the model itself allows other ones.

    Args:
        model: Any module whose control flow does not depend on the values of tensors.
        example_inputs: A tensor, a tuple of arguments, a dict of keyword arguments, or a pair (tuple, dict).
            Without it, plugins are asked, then the first layer decides.
        atomic_modules: Classes whose instances stay one vertex each.
        keep_hierarchy: Nest the vertices of each submodule into a `DagModule` of its own.
        registry: The vocabulary; that of the installed plugins by default.

    Raises:
        ExampleInputsError: no example inputs were given or found.
        TraceError: the model cannot be traced; names module, file and line.
    """
    from torch_dag_core.plugins import default_registry, first_answer

    if isinstance(model, DagModule):
        return model.clone()
    registry = registry or default_registry()
    if example_inputs is None:
        example_inputs = first_answer("torch_dag_example_inputs", object, model=model)
    example = ExampleInputs.of(model, guess(model) if example_inputs is None else example_inputs)
    conversion = _Conversion(model, example, registry, frozenset(atomic_modules))
    dag = conversion.run()
    if keep_hierarchy:
        nest_scopes(dag)
    dag.verify()
    return dag


@dataclass
class _Conversion:
    model: nn.Module
    example: ExampleInputs
    registry: Registry
    atomic: frozenset[type[nn.Module]]

    def run(self) -> DagModule:
        """Try with free image sizes, then with free batch, then as the example is; remember why not more."""
        notes: list[str] = []
        for batch, space in ((BATCHES, True), (BATCHES, False), (None, False)):
            if space and not self.example.has_images:
                continue
            try:
                return self._convert(batch, other_space=space, notes=tuple(notes))
            except (SizeError, _ResizedTraceError) as error:
                what = "image size" if space else "batch size"
                notes.append(f"the {what} is fixed: {error}")
        raise TraceError(notes[-1])

    def _convert(self, batch: tuple[int, int] | None, *, other_space: bool, notes: tuple[str, ...]) -> DagModule:
        first = self.example.resized(batch=batch and batch[0], other_space=False)
        second = None if batch is None else self.example.resized(batch=batch[1], other_space=other_space)
        evaluation = self._sizes(first, second, training=False)
        training = self._sizes_in_training(evaluation, first, second)
        builder = Builder(owners=possible_owners((*evaluation.trace.nodes, *training.trace.nodes)))
        emission = Emission(self.model, self.registry, builder, evaluation, training)
        emission.inputs(self.example.names)
        spec = self._input_spec(builder, notes)
        for event in merge_modes(evaluation.trace, training.trace):
            emission.add(event)
        emission.outputs()
        guards = assumptions(evaluation.trace.guards, evaluation, builder.inputs)
        if training is not evaluation:
            guards += assumptions(training.trace.guards, training, builder.inputs)
        builder.dag.input_spec = replace(spec, assumptions=tuple(dict.fromkeys(guards)))
        builder.dag.remove_dead_vertices()
        self._adopt_modes(builder.dag)
        unused = sorted(self.model.state_dict().keys() - builder.dag.state_dict().keys())
        builder.dag.provenance = {"model": qualified_name(type(self.model)), UNUSED: unused}
        return builder.dag

    def _sizes(self, first: list[Tensor], second: list[Tensor] | None, *, training: bool) -> Sizes:
        trace = self._trace(first, training=training)
        if second is None:
            return Sizes(trace, None)
        try:
            resized = self._trace(second, training=training)
        except TraceError as error:
            raise _ResizedTraceError(str(error)) from error
        return Sizes(trace, resized)

    def _sizes_in_training(self, evaluation: Sizes, first: list[Tensor], second: list[Tensor] | None) -> Sizes:
        """Trace in training mode; the second size is needed only where training makes other calls."""
        trace = self._trace(first, training=True)
        if same_calls(evaluation.trace, trace):
            return evaluation.in_training(trace)
        return self._sizes(first, second, training=True)

    def _trace(self, tensors: list[Tensor], *, training: bool) -> Trace:
        args, kwargs = self.example.call_arguments(tensors)
        result = trace(self.model, args, kwargs, self.example.names, self._treatment, training=training)
        keep_unfolded(result, self.model)
        return result

    def _treatment(self, module: nn.Module) -> Treatment:
        """Tell how a submodule is traced: through its forward, as one call, or through a stand-in."""
        atomic = self.registry.atomic_for(module)
        if type(module) in self.atomic or isinstance(module, DagModule):
            return LEAF
        if atomic is not None:
            return LEAF if atomic.trace_as is None else Treatment(stand_in=atomic.trace_as)
        return LEAF if self.registry.for_module(module) is not None else THROUGH

    def _input_spec(self, builder: Builder, notes: tuple[str, ...]) -> InputSpec:
        tensors = tuple(
            TensorSpec(tensor.dtype, tuple(None if _is_free(size) else int(size) for size in value.shape or ()))
            for tensor, value in zip(self.example.tensors, builder.inputs, strict=True)
        )
        return InputSpec(self.example.parameters, tensors, (), notes)

    def _adopt_modes(self, dag: DagModule) -> None:
        dag.train(self.model.training)
        modes = {path: module.training for path, module in self.model.named_modules()}
        for vertex in dag.inner_vertices:
            vertex.module.train(modes.get(vertex.name, self.model.training))


class _ResizedTraceError(TraceError):
    """The model runs at its example sizes, but not at others."""


def _is_free(size: int) -> bool:
    return hasattr(size, "other")
