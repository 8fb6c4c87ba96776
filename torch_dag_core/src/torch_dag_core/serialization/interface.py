"""The JSON form of a graph's signature and outputs, with the same checks for writing and reading.

The forward of a graph is generated code. Everything here that becomes part of that code is therefore checked:
parameter names are identifiers, defaults are literals, slots are in range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph import conditions
from torch_dag_core.graph.conditions import MAX_NESTING
from torch_dag_core.graph.inputs import Assumption, InputSpec, Parameter, TensorSpec, is_parameter_name
from torch_dag_core.graph.nested import leaves
from torch_dag_core.graph.structure import class_of, slots, walk
from torch_dag_core.graph.values import DTYPES, Record, Slot, decode, encode, sizes_in
from torch_dag_core.serialization.node import BAD_DATA, Node

_KEYS = (str, int, bool, type(None))


def encode_spec(spec: InputSpec, inputs: int) -> dict[str, Any]:
    """Return the JSON form of the input spec of a graph with ``inputs`` inputs."""
    check_spec(spec, inputs)
    encoded = {
        "parameters": [
            {"name": p.name, "structure": encode_checked(p.structure, f"parameter {p.name!r}"), "default": p.default}
            for p in spec.parameters
        ],
        "tensors": [_encoded_tensor(tensor) for tensor in spec.tensors],
        "assumptions": [encode_checked(a.condition, "an assumption") for a in spec.assumptions],
        "notes": list(spec.notes),
    }
    return {**encoded, "evaluation_only": True} if spec.evaluation_only else encoded


def _encoded_tensor(tensor: TensorSpec) -> dict[str, Any]:
    encoded = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    example = tensor.example_shape
    return encoded if example is None else {**encoded, "example": list(example)}


def decode_spec(node: Node, inputs: int) -> InputSpec:
    """Return the input spec whose JSON form is ``node``."""
    fields = node.fields("parameters", "tensors", "assumptions", "notes", optional=("evaluation_only",))
    spec = InputSpec(
        parameters=tuple(_parameter(item) for item in fields["parameters"].items()),
        tensors=tuple(_tensor(item) for item in fields["tensors"].items()),
        assumptions=tuple(Assumption(item.constant()) for item in fields["assumptions"].items()),
        notes=tuple(item.text() for item in fields["notes"].items()),
        evaluation_only="evaluation_only" in fields and fields["evaluation_only"].flag(),
    )
    _check_located_at(node, lambda: check_spec(spec, inputs))
    return spec


def _parameter(node: Node) -> Parameter:
    fields = node.fields("name", "structure", "default")
    return Parameter(fields["name"].text(), fields["structure"].constant(), fields["default"].flag())


def _tensor(node: Node) -> TensorSpec:
    fields = node.fields("dtype", "shape", optional=("example",))
    name = fields["dtype"].text()
    if name not in DTYPES:
        fields["dtype"].fail(f"is {name!r:.60}, which is no dtype")
    sizes = (None if size.value is None else size.integer() for size in fields["shape"].items())
    example = fields.get("example")
    known = None if example is None else tuple(size.integer() for size in example.items())
    return TensorSpec(DTYPES[name], tuple(sizes), known)


def _check_located_at(node: Node, check: Callable[[], None]) -> None:
    """Run a check; an error gets the path of the node in the document."""
    try:
        check()
    except SerializationError as error:
        message = f"{node.path}: {error}"
        raise SerializationError(message) from error


def encode_checked(value: Any, what: str) -> Any:
    """Return the JSON form of a constant.

    Args:
        value: The constant.
        what: Names it in the error.

    Raises:
        SerializationError: the value is not of the closed set of constants.
    """
    try:
        data = encode(value)
        decode(data)
    except BAD_DATA as error:
        message = f"{what} cannot be saved: {error}"
        raise SerializationError(message) from error
    return data


def check_spec(spec: InputSpec, inputs: int) -> None:
    """Raise a `SerializationError` for an input spec from which no forward can be generated."""
    names = [parameter.name for parameter in spec.parameters]
    for name in names:
        if not is_parameter_name(name) or names.count(name) > 1:
            _fail(f"{name!r:.60} cannot name a parameter of forward")
    structures = [parameter.structure for parameter in spec.parameters]
    check_structure(structures, inputs if structures else 0, "the parameters of forward")
    if len(spec.tensors) not in (0, inputs) or (spec.tensors and not structures):
        _fail(f"the input spec describes {len(spec.tensors)} tensors, the graph has {inputs} inputs")
    for tensor in spec.tensors:
        if tensor.dtype not in DTYPES.values():
            _fail(f"an input of type {tensor.dtype} cannot be saved")
        if tensor.example_shape is not None and len(tensor.example_shape) != len(tensor.shape):
            _fail(f"an input of {len(tensor.shape)} dimensions has the example sizes {tensor.example_shape}")
    for assumption in spec.assumptions:
        _check_condition(assumption.condition, inputs)


def check_structure(structure: Any, tensors: int, what: str) -> None:
    """Raise a `SerializationError` for a template that is nested too deep, or whose slots are not 0..tensors - 1."""
    _check_template(structure, what)
    found = sorted(set(slots(structure)))
    if found != list(range(tensors)):
        _fail(f"{what} fill the slots {found!r:.60}, not 0..{tensors - 1}")


def _check_template(template: Any, what: str) -> None:
    for path, part in walk(template):
        if len(path) > MAX_NESTING:
            _fail(f"{what} are nested deeper than {MAX_NESTING} levels")
        if isinstance(part, Record):
            _check_record(part, what)
        odd = [key for key in part if not isinstance(key, _KEYS)] if isinstance(part, dict) else []
        if odd:
            _fail(f"{what} have the dictionary key {odd[0]!r:.60}; only strings and integers can be saved")


def _check_record(record: Record, what: str) -> None:
    try:
        class_of(record)
    except BAD_DATA as error:
        message = f"{what} hold a record {record.name!r:.60} that cannot be made: {error}"
        raise SerializationError(message) from error


def _check_condition(condition: Any, inputs: int) -> None:
    try:
        conditions.check(condition, inputs)
    except ValueError as error:
        raise SerializationError(str(error)) from error


def check_operands(value: Any, operands: int, what: str) -> None:
    """Raise a `SerializationError` if a constant of an op refers to an operand that the vertex does not have."""
    used = _operands_in(value)
    wrong = [index for index in used if not 0 <= index < operands]
    if wrong:
        _fail(f"{what} refers to operand {wrong[0]!r:.60} but the vertex has {operands}")


def _operands_in(value: Any) -> list[int]:
    slots = [leaf.index for leaf in leaves(value) if isinstance(leaf, Slot)]
    return slots + [operand for size in sizes_in(value) for operand, _ in size.dims]


def _fail(message: str) -> NoReturn:
    raise SerializationError(message)
