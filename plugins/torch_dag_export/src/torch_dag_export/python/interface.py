"""How an exported model is called and what it returns: parameters, checks of the inputs, containers of the outputs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_dag_core.graph.conditions import render as render_condition
from torch_dag_core.graph.inputs import InputSpec, Parameter
from torch_dag_core.graph.keyed_record import KeyedRecord
from torch_dag_core.graph.structure import is_container, slots, walk, written
from torch_dag_core.graph.values import Record, Slot
from torch_dag_export.errors import ExportError
from torch_dag_export.python.literals import literal, text
from torch_dag_export.python.names import Variables
from torch_dag_export.python.support import check_constant, check_shape

_MATH = frozenset({"gcd", "lcm", "isqrt", "sqrt", "log", "log2", "floor", "ceil", "trunc"})
_BUILT_IN = frozenset({"abs", "float", "pow", "round"})


@dataclass
class Interface:
    """The head of ``forward``.

    Attributes:
        signature: The parameters as text.
        lines: Statements that check the arguments and name the tensors inside.
        variables: The variable of each input tensor.
        sources: Functions that the lines use.
        imports: Names of the module `math` that they use.
    """

    signature: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)


def interface_of(spec: InputSpec, count: int, taken: Collection[str]) -> Interface:
    """Return the head of ``forward`` for a graph with so many input tensors.

    Args:
        spec: Of the graph.
        count: Number of its input vertices.
        taken: Names that functions of the file use.

    Raises:
        ExportError: a parameter has one of these names, or a condition on sizes cannot be written.
    """
    spec = spec.for_inputs(count)
    head = Interface(variables=[""] * count)
    _refuse_taken(spec, taken)
    variables = Variables([*taken, *(parameter.name for parameter in spec.parameters)])
    for parameter in spec.parameters:
        head.signature.append(_parameter(parameter, head))
        _unpack(parameter, head, variables)
    for index, tensor in enumerate(spec.tensors):
        name = head.variables[index]
        _use(head, check_shape, f'check_shape("{name}", {name}, {literal(tensor.shape)})')
    for assumption in spec.assumptions:
        _assume(assumption.condition, head)
    return head


def _refuse_taken(spec: InputSpec, taken: Collection[str]) -> None:
    for parameter in spec.parameters:
        if parameter.name in taken:
            message = f"the parameter {parameter.name!r} of the model has the name of something that the file uses"
            raise ExportError(message)


def _use(head: Interface, source: Any, line: str) -> None:
    head.lines.append(line)
    if source not in head.sources:
        head.sources.append(source)


def _parameter(parameter: Parameter, head: Interface) -> str:
    """Return the parameter's text; one without a default behind one that has some gets a mark for a missing value."""
    if parameter.default:
        return f"{parameter.name}={written(parameter.structure, literal, literal)}"
    if not any("=" in earlier for earlier in head.signature):
        return parameter.name
    head.lines += [f"if {parameter.name} is None:", f"    raise TypeError(\"argument '{parameter.name}' is missing\")"]
    return f"{parameter.name}=None"


def _unpack(parameter: Parameter, head: Interface, variables: Variables) -> None:
    inside = slots(parameter.structure)
    for path, part in walk(parameter.structure):
        source = parameter.name + "".join(map(str, path))
        if isinstance(part, Slot):
            name = parameter.name if not path else variables.add(f"{parameter.name}_{inside.index(part.index)}")
            head.variables[part.index] = name
            head.lines += [] if name == source else [f"{name} = {source}"]
        elif isinstance(part, (tuple, list)):
            _use(head, check_constant, f"check_constant({text(f'the length of {source}')}, len({source}), {len(part)})")
        elif not is_container(part):
            _use(head, check_constant, f"check_constant({text(source)}, {source}, {literal(part)})")


def _assume(condition: Any, head: Interface) -> None:
    rule = render_condition(condition, lambda index: head.variables[index])
    functions = set(re.findall(r"\b([a-z_0-9]+)\(", rule))
    unknown = functions - _MATH - _BUILT_IN
    if unknown:
        message = f"the graph holds only where {rule}, and {', '.join(sorted(unknown))} cannot be written as Python"
        raise ExportError(message)
    head.imports |= functions & _MATH
    head.lines += [f"if not {rule}:", f'    raise ValueError("the model holds only where {rule}")']


# Outputs ---------------------------------------------------------------------------------------------------------


def returned(structure: Any, variables: Sequence[str]) -> str:
    """Return the expression of what the model returns."""
    return written(structure, lambda leaf: literal(leaf, variables), literal)


def records_in(structures: Sequence[Any]) -> Iterator[Record]:
    """Iterate over the classes of records among outputs, each once.

    Raises:
        ExportError: two of them have the same name.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for part in (part for structure in structures for _, part in walk(structure)):
        if not isinstance(part, Record):
            continue
        form = (part.kind, tuple(name for name, _ in part.fields))
        if part.name not in found:
            found[part.name] = form
            yield part
        elif found[part.name] != form:
            message = f"the model returns two classes named {part.name!r}; rename one of them"
            raise ExportError(message)


def record_source(record: Record) -> str:
    """Return the definition of the class of a record."""
    names = [name for name, _ in record.fields]
    if record.kind == "namedtuple":
        return f"{record.name} = namedtuple({record.name!r}, {names!r})"
    mapping = record.kind == "mapping"
    decorator = "@dataclasses.dataclass(eq=False, repr=False)" if mapping else "@dataclasses.dataclass"
    base, default = (f"({KeyedRecord.__name__})", " = None") if mapping else ("", "")
    fields = [f"    {name}: Any{default}" for name in names] or ["    pass"]
    return "\n".join([decorator, f"class {record.name}{base}:", '    """What the model returns."""', "", *fields])
