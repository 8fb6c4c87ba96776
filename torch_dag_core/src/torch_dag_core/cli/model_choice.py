"""The model that a command is given, built and converted as its options say; `model_options` declares those."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch_dag_core.cli.answers import note, step
from torch_dag_core.cli.example_choice import ExampleChoice
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.references import Arguments, load_model
from torch_dag_core.conversion.convert import Modes, build_from_unstructured_module, find_example_inputs
from torch_dag_core.conversion.example_inputs import as_arguments
from torch_dag_core.errors import ExampleInputsError, ModelReferenceError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import bind_inputs
from torch_dag_core.graph.structure import pack, unpack
from torch_dag_core.plugins.loading import named_contributions
from torch_dag_core.plugins.model_sources import ModelList

__all__ = ["ModelChoice", "takes_model"]


@dataclass(frozen=True)
class ModelChoice:
    """The model that the user named, with the options that go with it.

    Attributes:
        reference: The model.
        arguments: For what the reference names, as texts.
        weights: A file with weights.
        pretrained: Whether the source of the model is asked for trained weights.
        example: What was said about inputs.
        seed: For random weights and inputs.
        device: Where the model runs.
        dtype: What its floating-point numbers, and those of its inputs, are cast to; None leaves them as they are.
        modes: Which modes a model is converted in; None for both, or for those of a graph that was saved.
    """

    reference: str
    arguments: tuple[str, ...] = ()
    weights: Path | None = None
    pretrained: bool = False
    example: ExampleChoice = field(default_factory=ExampleChoice)
    seed: int = 0
    device: str = "cpu"
    dtype: str | None = None
    modes: Modes | None = None

    def model(self) -> nn.Module:
        """Build or load the model, in evaluation mode; says so where its weights are random.

        Raises:
            ModelReferenceError: the reference names no model, or the device cannot be used.
        """
        device = _usable(self.device)
        torch.manual_seed(self.seed)
        with step(f"loading {self.reference}"):
            model = load_model(self.reference, self.arguments, self.weights, pretrained=self.pretrained)
        if self._is_random():
            note(
                f"{self.reference} has random weights (seed {self.seed}); --pretrained or --weights FILE gives it "
                "trained ones"
            )
        model = model.eval().to(device)
        return model if self.dtype is None else _cast(model, getattr(torch, self.dtype))

    def _is_random(self) -> bool:
        """Tell whether the weights are those of a library's untrained model."""
        options = Arguments.parse(self.arguments).options
        trained = self.pretrained or self.weights is not None or options.get("pretrained") or options.get("weights")
        prefix, colon, _ = self.reference.partition(":")
        return bool(colon) and not trained and prefix in named_contributions("torch_dag_model_lists", ModelList)

    def inputs(self) -> Any:
        """Return example inputs on the device; None where nothing was said, so that plugins offer an example."""
        given = self.example.inputs()
        return None if given is None else self.placed(given)

    def placed(self, given: Any) -> Any:
        """Return tensors, in any containers, on the device, those of floating point in the precision of the model."""
        tensors: list[Any] = []
        template = pack(given, lambda value: isinstance(value, torch.Tensor), tensors)
        return unpack(template, [self._placed(tensor) for tensor in tensors])

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        floats = self.dtype is not None and tensor.is_floating_point()
        return tensor.to(self.device, getattr(torch, str(self.dtype)) if floats else tensor.dtype)

    def graph(self, model: nn.Module | None = None) -> DagModule:
        """Convert the model; one that is a graph already remembers the sizes that were asked for.

        Raises:
            ModelReferenceError: the model is a graph already, which has the modes that it was converted in.
        """
        model = self.model() if model is None else model
        inputs = self.inputs()
        if not isinstance(model, DagModule):
            with step(f"converting {self.reference}"):
                if inputs is None and self.dtype is not None:
                    inputs = self.placed(find_example_inputs(model))
                return _converted(model, inputs, self.modes or "both")
        if self.modes is not None:
            message = f"{self.reference} is a graph already; give --modes where its model is converted"
            raise ModelReferenceError(message)
        return model if inputs is None else _sized(model, inputs)


def _converted(model: nn.Module, inputs: Any, modes: Modes) -> DagModule:
    """Convert a model.

    Raises:
        ExampleInputsError: no inputs are given, and none are known; names the options that give some.
    """
    try:
        return build_from_unstructured_module(model, inputs, modes=modes)
    except ExampleInputsError as error:
        if inputs is not None:
            raise
        message = (
            f"nothing tells which inputs {type(model).__name__} takes; give an example with --size C,H,W for one "
            "image, or --input [NAME:]SHAPE[:DTYPE]"
        )
        raise ExampleInputsError(message) from error


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the floating-point numbers of a model; a graph expects its inputs in that precision from then on."""
    model = model.to(dtype)
    if isinstance(model, DagModule):
        specs = (
            dataclasses.replace(spec, dtype=dtype if spec.dtype.is_floating_point else spec.dtype)
            for spec in model.input_spec.tensors
        )
        model.input_spec = dataclasses.replace(model.input_spec, tensors=tuple(specs))
    return model


def _sized(dag: DagModule, inputs: Any) -> DagModule:
    """Let a graph that was loaded remember the sizes of these inputs, instead of its own.

    Raises:
        InputError: the graph does not take them.
    """
    args, kwargs = as_arguments(inputs)
    tensors = bind_inputs(dag, *args, **kwargs)
    specs = [
        dataclasses.replace(spec, example_shape=tuple(tensor.shape))
        for spec, tensor in zip(dag.input_spec.tensors, tensors, strict=True)
    ]
    dag.input_spec = dataclasses.replace(dag.input_spec, tensors=tuple(specs))
    return dag


def _usable(name: str) -> torch.device:
    """Return a device that tensors can be made on.

    Raises:
        ModelReferenceError: there is none of that name here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        message = f"the device {name!r} cannot be used here: {str(error).splitlines()[0]}"
        raise ModelReferenceError(message) from error
    return device
