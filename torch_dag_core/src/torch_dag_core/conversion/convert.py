"""From a model and example inputs to a verified `DagModule`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from torch_dag_core.conversion.agreement import check_shapes, shapes_of
from torch_dag_core.conversion.assumptions import Conditions
from torch_dag_core.conversion.axes import IMAGE
from torch_dag_core.conversion.both_modes import join_modes
from torch_dag_core.conversion.builder import Builder
from torch_dag_core.conversion.emission import Emission
from torch_dag_core.conversion.example_inputs import STEPS, ExampleInputs, guess
from torch_dag_core.conversion.free_sizes import Claim, FreeSize, SizeError
from torch_dag_core.conversion.garbage import without_full_collections
from torch_dag_core.conversion.hierarchy import nest_scopes
from torch_dag_core.conversion.joining import Sizes
from torch_dag_core.conversion.normalizers.promotion import possible_owners
from torch_dag_core.conversion.traces import ResizedTraceError, Traces
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.checkpoint_keys import MOVED, UNUSED
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import Assumption, InputSpec, TensorSpec
from torch_dag_core.plugins.loading import default_registry, first_answer
from torch_dag_core.plugins.registry import Registry, qualified_name
from torch_dag_core.tracing.exclusive import exclusive
from torch_dag_core.tracing.recording import Recording
from torch_dag_core.tracing.restoring import frozen_modules
from torch_dag_core.tracing.trace import LEAF, OPAQUE, THROUGH, Treatment

_BATCHES = (13, 11)
Modes: TypeAlias = Literal["both", "eval"]


def build_from_unstructured_module(
    model: nn.Module, example_inputs: Any = None, *, atomic_modules: Collection[type[nn.Module]] = (),
    keep_hierarchy: bool = False, modes: Modes = "both", registry: Registry | None = None,
) -> DagModule:  # fmt: skip
    """Convert a model into one graph that computes the same, in evaluation and, by default, in training.

    The model is run a few times without data, and left as it was; the graph owns copies of its parameters. The batch
    size is free in the result; sizes of images, lengths and numbers of tokens are where the model allows other ones.
    Conversions run one at a time; calls that other threads make of the model, or of its submodules, wait.

    Calls whose results nobody reads are left out, unless they update state. Random numbers that such a call drew are
    not drawn then: later draws have the same distribution as the model's, but not the same values.

    Args:
        model: Any module whose control flow does not depend on the values of tensors.
        example_inputs: A tensor, a tuple of arguments, a dict of keyword arguments, or a pair (tuple, dict).
            Without it, plugins are asked, then the first layer decides.
        atomic_modules: Classes whose instances stay one vertex each.
        keep_hierarchy: Nest the vertices of each submodule into a `DagModule` of its own.
        modes: ``"eval"`` converts what the model computes in evaluation alone, for models whose calls in training
            depend on data. The graph cannot be called in training mode; gradients flow through it all the same.
        registry: The vocabulary; that of the installed plugins by default.

    Raises:
        ExampleInputsError: no example inputs were given or found.
        TraceError: the model cannot be traced; names module, file and line.
        ValueError: ``modes`` is something else.
    """
    _refuse_unknown(modes)
    if isinstance(model, DagModule):
        return model.clone()
    _refuse_unusable(model)
    registry = registry or default_registry()  # before the lock, because plugins load under one of their own
    with exclusive(model), without_full_collections():
        example = ExampleInputs.of(model, find_example_inputs(model) if example_inputs is None else example_inputs)
        dag = _Conversion(model, example, registry, frozenset(atomic_modules), frozen_modules(model), modes).run()
    if keep_hierarchy:
        nest_scopes(dag)
    dag.verify()
    return dag


def _refuse_unknown(modes: str) -> None:
    if modes not in get_args(Modes):
        message = f"modes is {modes!r}, but has to be one of {', '.join(map(repr, get_args(Modes)))}"
        raise ValueError(message)


def find_example_inputs(model: nn.Module) -> Any:
    """Return what plugins offer to call the model with, or else what suits its first layer.

    Raises:
        ExampleInputsError: no plugin offers any, and the first layer does not tell.
    """
    offered = first_answer("torch_dag_example_inputs", tuple, model=model)
    return guess(model) if offered is None else offered


def _refuse_unusable(model: nn.Module) -> None:
    for path, module in model.named_modules():
        name = repr(path) if path else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            message = f"{name} is a TorchScript module, which no trace can follow; use the module that it was made of"
            raise TraceError(message)
        if any(map(is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False)))):
            message = f"{name} is a {type(module).__name__} without sizes yet; call the model once, then convert it"
            raise TraceError(message)


@dataclass
class _Conversion:
    model: nn.Module
    example: ExampleInputs
    registry: Registry
    atomic: frozenset[type[nn.Module]]
    frozen: frozenset[nn.Module]
    modes: Modes

    def run(self) -> DagModule:
        """Convert the model.

        Raises:
            TraceError: it cannot be converted; says so where it could be in evaluation alone.
        """
        traces = Traces(self.model, self.example, self._treatment)
        try:
            return self._largest(traces)
        except TraceError as error:
            if self.modes == "eval" or not replace(self, modes="eval").succeeds(traces):
                raise
            message = f'{error}; in evaluation the model can be converted: pass modes="eval" for such a graph'
            raise TraceError(message) from error

    def succeeds(self, traces: Traces) -> bool:
        """Tell whether the model can be converted."""
        try:
            self._largest(traces)
        except TraceError:
            return False
        return True

    def _largest(self, traces: Traces) -> DagModule:
        """Try with free image sizes, then with free batch, then as the example is; remember why not more."""
        notes: dict[str, None] = {}
        hopeless: set[str | None] = set()
        for variation in self._variations(traces):
            if variation.free in hopeless:
                continue
            try:
                dag = self._convert(traces, variation, _notes_at(variation, notes))
            except TraceError as error:
                is_of_sizes = isinstance(error, (SizeError, ResizedTraceError))
                if variation.free is None and not is_of_sizes:
                    raise
                if not is_of_sizes:  # a call that no free size can be given to: other steps do not help
                    hopeless.add(variation.free)
                if variation.step == 0 or (
                    variation.axes.is_noted and (not is_of_sizes or variation.step == STEPS[-1])
                ):
                    notes[f"the {variation.free or 'batch size'} is fixed: {error}"] = None
                continue
            if hold(dag.input_spec.assumptions, shapes_of(self.example.tensors)):
                return dag
            notes["the model takes another path at other batch sizes"] = None
        raise TraceError(next(reversed(notes)))

    def _variations(self, traces: Traces) -> Iterator[Variation]:
        """Yield what may differ, most first; the batch of the example comes last, in case a decision rests on it."""
        here = self.example.batch
        # A size of 13 in the first run is the batch, because hardly any model has a constant of 13. The second run has
        # fewer samples of larger images, so that a size which follows the batch falls and one which follows the image
        # grows. Models that divide the batch need multiples of the example's: seven times as many is as rare a number,
        # twice as many stays below most limits on the batch.
        others = [(here, 7 * here), (here, 2 * here)] if here > 1 else []
        batches = [(_BATCHES, False), *((pair, multiples) for multiples in (False, True) for pair in others)]
        for batch, multiples in batches:
            for axes in self.example.axes:
                if batch is _BATCHES or axes is IMAGE:
                    yield from (Variation(batch, step, multiples, axes) for step in self._steps(traces))
            yield Variation(batch, 0, multiples)
        yield Variation(None)

    def _steps(self, traces: Traces) -> Iterator[int]:
        """Yield by what sizes may differ: by one, by what the model itself divides them by, and by powers of two."""
        first, *others = STEPS
        yield first
        yield from sorted({*others, traces.step} - {first})

    def _convert(self, traces: Traces, variation: Variation, notes: tuple[str, ...]) -> DagModule:
        evaluation, training = traces.both_modes(variation, evaluation_only=self.modes == "eval")
        builder = self._builder(evaluation, (evaluation.recording, training.recording))
        emission = Emission(self.model, self.registry, builder, join_modes(evaluation, training))
        emission.run()
        dag = builder.dag
        if builder.has_fractions and variation.batch not in (None, _BATCHES) and not variation.multiples:
            message = "a size is a fraction of others, which may round another way at other batch sizes"
            raise SizeError(message)
        claims = (*emission.claims, *builder.claims)
        assumptions = self._assumptions(variation, (evaluation, training), claims)
        dag.input_spec = self._input_spec(builder, assumptions, notes)
        dag.remove_dead_vertices()
        check_shapes(dag, self.registry, evaluation.recordings[-2:])
        self._adopt_modes(dag)
        self._note_origin(dag, builder)
        return dag

    def _assumptions(
        self, variation: Variation, modes: tuple[Sizes, Sizes], claims: tuple[Claim, ...]
    ) -> tuple[Assumption, ...]:
        evaluation, _ = modes
        conditions = Conditions(evaluation.input_shapes, variation.step)
        for sizes in modes:
            conditions.add_guards(sizes)
            conditions.add_losses(sizes)
        conditions.add_claims(claims)
        conditions.add_steps(variation, self.example.batch)
        # A size seen after another decision is no evidence of what the graph's sizes follow.
        if not all(hold(conditions.found, recording.input_shapes) for recording in evaluation.recordings):
            message = "the model takes another path at other input sizes"
            raise SizeError(message)
        return conditions.found

    def _builder(self, evaluation: Sizes, recordings: tuple[Recording, Recording]) -> Builder:
        walks = (self.model.named_modules, self.model.named_parameters, self.model.named_buffers)
        reserved = frozenset(name for walk in walks for name, _ in walk(remove_duplicate=False))
        # The tensors of a frozen batch norm stand on their own: the layer itself would thaw in training.
        frozen = {path for path, module in self.model.named_modules() if module in self.frozen and _has_modes(module)}
        owners = possible_owners(recordings) - frozen
        return Builder(owners=owners, reserved=reserved, batches=evaluation.batches)

    def _note_origin(self, dag: DagModule, builder: Builder) -> None:
        dag.provenance = {"model": qualified_name(type(self.model))}
        moved = {name: path for name, path in builder.moved.items() if name in dag}
        if moved:
            dag.provenance[MOVED] = moved
        dag.provenance[UNUSED] = sorted(self.model.state_dict().keys() - dag.state_dict().keys())

    def _treatment(self, module: nn.Module) -> Treatment:
        """Tell how a module is traced: through its forward, as one call, or through a stand-in."""
        atomic = self.registry.atomic_for(module)
        if type(module) in self.atomic:
            return OPAQUE
        if isinstance(module, DagModule):
            return LEAF
        if module in self.frozen:
            return THROUGH  # as one vertex it would follow the mode of the graph
        if atomic is not None:
            return LEAF if atomic.trace_as is None else Treatment(stand_in=atomic.trace_as)
        op = self.registry.for_module(module)
        # A composite op that is the whole model is asked for its parts: its expansion may be itself.
        return THROUGH if op is None or (module is self.model and op.expand is not None) else LEAF

    def _input_spec(
        self, builder: Builder, assumptions: tuple[Assumption, ...], notes: tuple[str, ...]
    ) -> InputSpec:  # fmt: skip
        tensors = (
            TensorSpec(tensor.dtype, tuple(map(_fixed_size, value.shape or ())), tuple(tensor.shape))
            for tensor, value in zip(self.example.tensors, builder.inputs, strict=True)
        )
        return InputSpec(self.example.parameters, tuple(tensors), assumptions, notes, self.modes == "eval")

    def _adopt_modes(self, dag: DagModule) -> None:
        dag.train(self.model.training and self.modes == "both")
        if self.modes == "eval":
            return
        modes = {path: module.training for path, module in self.model.named_modules()}
        for vertex in dag.inner_vertices:
            vertex.module.train(modes.get(vertex.name, self.model.training))


def _notes_at(variation: Variation, notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes of what is fixed; where a part of the image size is free, they name the rest of it alone."""
    if not variation.step:
        return tuple(notes)
    if variation.axes.others is None:  # smaller steps of the same sizes have failed
        return tuple(note for note in notes if not note.startswith(f"the {variation.axes.name} is"))
    whole, rest = f"the {IMAGE.name} is", f"the {variation.axes.others} is"
    return tuple(note.replace(whole, rest, 1) if note.startswith(whole) else note for note in notes)


def _has_modes(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def _fixed_size(size: int) -> int | None:
    return None if type(size) is FreeSize else int(size)
