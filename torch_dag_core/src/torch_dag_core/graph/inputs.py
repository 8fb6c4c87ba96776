"""How a DagModule is called: parameters, the tensors inside them, and what the trace assumed of their sizes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from torch_dag_core.errors import InputError
from torch_dag_core.graph.caller_state import SETTINGS, is_of_caller
from torch_dag_core.graph.conditions import holds, inputs_of, is_inline, render
from torch_dag_core.graph.structure import is_container, walk
from torch_dag_core.graph.values import Slot, is_identifier

_GENERATED = re.compile(r"self|_calls|_[xvdk]\d+")


@dataclass(frozen=True)
class Parameter:
    """One parameter of ``forward``; ``structure`` has a `Slot` per tensor, anything else is a constant."""

    name: str
    structure: Any
    default: bool = False


@dataclass(frozen=True)
class TensorSpec:
    """One input tensor; a dimension is an int where the model fixes it, None where it is free.

    ``example_shape`` holds the sizes at which the model was traced, None if it was not.
    """

    dtype: Any
    shape: tuple[int | None, ...]
    example_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Assumption:
    """A condition on input sizes, or on the state of the caller, that the graph rests on.

    `conditions` and `caller_state` say what ``condition`` may be.
    """

    condition: tuple[Any, ...]

    def __str__(self) -> str:
        return render(self.condition, lambda index: f"input {index}")


@dataclass(frozen=True)
class InputSpec:
    """Everything a caller has to respect; built by tracing, saved with the graph.

    Attributes:
        parameters: Those of ``forward``.
        tensors: What is known of each input tensor.
        assumptions: Conditions on sizes that the graph rests on.
        notes: Why sizes are fixed that might have been free.
        evaluation_only: Whether the graph holds what the model computes in evaluation alone; then it cannot be called
            in training mode.
    """

    parameters: tuple[Parameter, ...] = ()
    tensors: tuple[TensorSpec, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = field(default=())
    evaluation_only: bool = False

    @property
    def knows_sizes(self) -> bool:
        """Whether the sizes at which the model was traced are known."""
        return bool(self.tensors) and all(spec.example_shape is not None for spec in self.tensors)

    def for_inputs(self, count: int) -> InputSpec:
        """Return the spec; one without parameters takes ``count`` tensors positionally."""
        if self.parameters:
            return self
        return replace(self, parameters=tuple(Parameter(f"x{i}", Slot(i)) for i in range(count)))

    def reject(self, index: int, tensor: Tensor) -> None:
        """Raise the `InputError` for a tensor whose shape does not fit."""
        want = ", ".join("any" if size is None else str(size) for size in self.tensors[index].shape)
        reasons = "".join(f"; {note}" for note in self.notes)
        message = f"input {index} has shape {tuple(tensor.shape)}, the graph takes ({want}){reasons}"
        raise InputError(message)

    def reject_training(self) -> None:
        """Raise the `InputError` for a call in training mode of a graph that has none."""
        message = (
            'the graph computes in evaluation alone, because the model was converted with modes="eval"; '
            "call eval() on it, or convert the model for both modes"
        )
        raise InputError(message)

    def reject_missing(self, name: str) -> None:
        """Raise the `InputError` for an argument that was left out."""
        message = f"argument {name!r} is missing; the model was traced with it"
        raise InputError(message)

    def reject_constant(self, name: str, given: Any, traced: Any) -> None:
        """Raise the `InputError` for an argument that was a constant when the model was traced."""
        message = (
            f"argument {name!r} is {type(given).__name__}, but the model was traced with {traced!r}; "
            "convert the model again with an example for this argument"
        )
        raise InputError(message)

    def holds(self, index: int, shapes: Sequence[Sequence[int]]) -> bool:
        """Tell whether inputs of these shapes respect assumption ``index``."""
        return holds(self.assumptions[index].condition, shapes)

    def reject_assumption(self, index: int) -> None:
        """Raise the `InputError` for sizes, or a state of the caller, outside of what was traced."""
        if is_of_caller(self.assumptions[index].condition):
            message = (
                f"the graph holds only where {self.assumptions[index]}: the model computes something else elsewhere; "
                "call the graph in that state"
            )
            raise InputError(message)
        message = (
            f"the graph holds only where {self.assumptions[index]}: the model takes another path elsewhere; "
            "convert it again with example inputs of this size"
        )
        raise InputError(message)


def is_parameter_name(name: str) -> bool:
    """Tell whether a parameter of ``forward`` may have this name: an identifier that generated code does not use."""
    return is_identifier(name) and not keyword.iskeyword(name) and not _GENERATED.fullmatch(name)


class _Missing:
    """Stands for an argument that was left out."""


@dataclass
class Binding:
    """The text of a function head that turns call arguments into variables ``_x0, _x1, ...``."""

    spec: InputSpec
    signature: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def render(self) -> Binding:
        """Fill signature and lines."""
        for parameter in self.spec.parameters:
            self.signature.append(self._parameter(parameter))
            self._unpack(parameter)
        for index, tensor in enumerate(self.spec.tensors):
            self._check(index, tensor)
        for index, assumption in enumerate(self.spec.assumptions):
            condition = self._condition(index, assumption)
            self.lines.append(f"if not {condition}: self.input_spec.reject_assumption({index})")
        return self

    def _condition(self, index: int, assumption: Assumption) -> str:
        """Return an expression for whether an assumption holds."""
        if is_inline(assumption.condition):
            return render(assumption.condition, lambda i: f"_x{i}", self._setting)
        shapes = "".join(f"_x{i}.shape, " for i in range(max(inputs_of(assumption.condition)) + 1))
        return f"self.input_spec.holds({index}, ({shapes}))"

    def _setting(self, name: str) -> str:
        """Return an expression for whether a setting has the value that it is named after."""
        return f"{self._constant(SETTINGS[name].read)}()"

    def _parameter(self, parameter: Parameter) -> str:
        """Return the parameter's text; one without a default after one that has some gets a mark to be refused."""
        if parameter.default:
            return f"{parameter.name}={self._constant(parameter.structure)}"
        if not any("=" in earlier for earlier in self.signature):
            return parameter.name
        missing = self._constant(_Missing)
        self.lines.append(f"if {parameter.name} is {missing}: self.input_spec.reject_missing({parameter.name!r})")
        return f"{parameter.name}={missing}"

    def _constant(self, value: Any) -> str:
        name = f"_d{len(self.constants)}"
        self.constants[name] = value
        return name

    def _unpack(self, parameter: Parameter) -> None:
        for path, part in walk(parameter.structure):
            source = parameter.name + "".join(map(str, path))
            if isinstance(part, Slot):
                self.lines.append(f"_x{part.index} = {source}")
            elif isinstance(part, (tuple, list)):
                length = self._constant(len)  # a parameter may be named len
                self._reject(f"{length}({source}) != {len(part)}", parameter, source, str(len(part)))
            elif not is_container(part):
                traced = self._constant(part)
                self._reject(f"{source} is not {traced} and {source} != {traced}", parameter, source, traced)

    def _reject(self, condition: str, parameter: Parameter, given: str, traced: str) -> None:
        self.lines.append(f"if {condition}: self.input_spec.reject_constant({parameter.name!r}, {given}, {traced})")

    def _check(self, index: int, tensor: TensorSpec) -> None:
        tests = [f"_x{index}.dim() != {len(tensor.shape)}"]
        tests += [f"_x{index}.shape[{dim}] != {size}" for dim, size in enumerate(tensor.shape) if size is not None]
        self.lines.append(f"if {' or '.join(tests)}: self.input_spec.reject({index}, _x{index})")
