"""The text of an exported file: imports, copied sources, the class of the model, and a function that loads it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.analysis.vertex_facts import flattened
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.graph.keyed_record import KeyedRecord
from torch_dag_core.graph.program import chosen_operand
from torch_dag_core.graph.registration import first_free
from torch_dag_core.graph.values import Record
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.plugins.discovery import distribution_version
from torch_dag_export.python.form import Call, PythonForm
from torch_dag_export.python.interface import Interface, interface_of, record_source, records_in, returned
from torch_dag_export.python.known_forms import forms_of
from torch_dag_export.python.members import Members
from torch_dag_export.python.names import Variables
from torch_dag_export.python.support import Group

_IMPORTS = {
    "OrderedDict": "from collections import OrderedDict",
    "namedtuple": "from collections import namedtuple",
    "dataclasses": "import dataclasses",
    "Any": "from typing import Any",
    "torchvision": "import torchvision  # noqa: F401  registers torch.ops.torchvision",
    "functional": "from torch.nn import functional",
}
"""Import statements by the name that has to occur in the code for them to be needed."""
_NAMES = ("torch", "nn", "Tensor", "Path", "load", "load_model", *_IMPORTS)


@dataclass(frozen=True)
class PythonFile:
    """An exported model.

    Attributes:
        text: The content of the Python file.
        tensors: Its weights by their names in the state dict.
    """

    text: str
    tensors: Mapping[str, Tensor]


def python_file(dag: DagModule, weights_suffix: str) -> PythonFile:
    """Return a graph as one Python file, and its weights.

    Args:
        dag: The graph.
        weights_suffix: What replaces the suffix of the file's name in that of the file with the weights.

    Raises:
        ExportError: an op, a condition or a class cannot be written as Python; says which.
    """
    dag = flattened(dag)
    modes = [mode for mode in (False, True) if not (mode and dag.input_spec.evaluation_only)]
    forms = _forms(dag, modes)
    members = Members(dag, forms)
    records = list(records_in([dag.output_vertex(training=mode).structure for mode in modes]))
    sources = _sources(forms, members, records)
    taken = {*_NAMES, *(each.__name__ for each in sources), *(each.name for each in records)}
    name = _class_name(dag, taken)
    head = interface_of(dag.input_spec, len(dag.input_vertices), {*taken, name})
    writer = _Bodies(dag, forms, members, head, frozenset({*taken, name}))
    model = _model(name, members, _functions(dag, head, {mode: writer.lines(training=mode) for mode in modes}))
    definitions = [*map(_source, [*head.sources, *sources]), *map(record_source, records)]
    code = "\n\n\n".join([*definitions, model, _LOAD.format(name=name, suffix=weights_suffix)])
    return PythonFile(f"{_header(dag, name, head, code)}\n\n\n{code}\n", members.tensors)


def _forms(dag: DagModule, modes: Sequence[bool]) -> Mapping[InnerVertex, PythonForm]:
    """Return the form of every vertex that runs in one of these modes."""
    live = {vertex for mode in modes for vertex in live_inner_vertices(dag, training=mode)}
    written = [vertex for vertex in dag.inner_vertices if vertex in live]
    return forms_of([vertex for vertex in written if chosen_operand(vertex, training=False) is None])


def _class_name(dag: DagModule, taken: Collection[str]) -> str:
    """Return the class name of the source model, where that is one that is free."""
    name = str(dag.provenance.get("model", "")).rpartition(".")[2]
    plain = name if name.isidentifier() and name.isascii() else "Model"
    return first_free(plain, lambda each: each not in taken)


def _sources(forms: Mapping[InnerVertex, PythonForm], members: Members, records: Sequence[Record]) -> list[Any]:
    """Return the functions and classes that the model uses, each once."""
    groups = [Group] if members.needs_group else []
    mappings = [KeyedRecord] if any(record.kind == "mapping" for record in records) else []
    copied = [source for form in forms.values() for source in form.sources]
    return list(dict.fromkeys([*groups, *copied, *mappings]))


def _source(thing: Any) -> str:
    """Return the source of a function or class without its decorators."""
    lines = dedent(inspect.getsource(thing)).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(("def ", "class ")))
    return re.sub(r"  # (noqa|type: ignore).*$", "", "\n".join(lines[start:]), flags=re.MULTILINE)


@dataclass(frozen=True)
class _Bodies:
    """Writes the statements of ``forward``: one for each vertex, and the last that returns the result."""

    dag: DagModule
    forms: Mapping[InnerVertex, PythonForm]
    members: Members
    head: Interface
    taken: frozenset[str]

    def lines(self, *, training: bool) -> list[str]:
        """Return the statements of one mode."""
        parameters = (text.partition("=")[0] for text in self.head.signature)
        variables = Variables([*self.taken, *self.head.variables, *parameters])
        values: dict[Vertex, str] = dict(zip(self.dag.input_vertices, self.head.variables, strict=True))
        lines = []
        for vertex in live_inner_vertices(self.dag, training=training):
            chosen = chosen_operand(vertex, training=training)
            if chosen is not None:
                values[vertex] = values[chosen]
                continue
            operands = tuple(values[predecessor] for predecessor in vertex.predecessors)
            values[vertex] = variables.add(vertex.name)
            lines.append(f"{values[vertex]} = {self._expression(vertex, operands)}")
        output = self.dag.output_vertex(training=training)
        return [*lines, f"return {returned(output.structure, [values[each] for each in output.predecessors])}"]

    def _expression(self, vertex: InnerVertex, operands: tuple[str, ...]) -> str:
        form, place = self.forms[vertex], self.members.places[vertex.module]
        if form.expression is None:
            return f"{place}({', '.join(operands)})"
        return form.expression(Call(vertex.module, operands, place))


# Text ------------------------------------------------------------------------------------------------------------

_LOAD = '''def load(weights: str | Path = Path(__file__).with_suffix("{suffix}")) -> {name}:
    """Return the model with its weights, in evaluation mode."""
    model = {name}()
    load_model(model, weights)
    return model.eval()'''


def _model(name: str, members: Members, functions: Sequence[str]) -> str:
    """Return the text of the class of the model."""
    base = Group.__name__ if members.root_is_group else "nn.Module"
    first = [f"class {name}({base}):", '    """The model; each line of ``forward`` is one vertex of its graph."""', ""]
    init = _function("__init__(self) -> None", ["super().__init__()", *members.lines])
    return "\n".join([*first, indent("\n\n".join([init, *functions]), "    ")])


def _functions(dag: DagModule, head: Interface, bodies: Mapping[bool, Sequence[str]]) -> list[str]:
    """Return ``forward``, or where training computes something else, one function for each mode besides."""
    signature = ", ".join(["self", *head.signature])
    if dag.input_spec.evaluation_only:
        refuse = ["if self.training:", '    raise ValueError("the model computes in evaluation alone; call eval()")']
        return [_function(f"forward({signature})", [*refuse, *head.lines, *bodies[False]])]
    if bodies[False] == bodies[True]:
        return [_function(f"forward({signature})", [*head.lines, *bodies[False]])]
    given = ", ".join(head.variables)
    lines = [f"return self._training({given}) if self.training else self._evaluation({given})"]
    inner = ", ".join(["self", *head.variables])
    return [
        _function(f"forward({signature})", [*head.lines, *lines]),
        _function(f"_evaluation({inner})", bodies[False]),
        _function(f"_training({inner})", bodies[True]),
    ]


def _function(head: str, lines: Iterable[str]) -> str:
    return "\n".join([f"def {head}:", *(f"    {line}" for line in lines)])


def _header(dag: DagModule, name: str, head: Interface, code: str) -> str:
    """Return the docstring of the file and its imports."""
    needed = [line for word, line in _IMPORTS.items() if re.search(rf"\b{word}\b", code)]
    math = [f"from math import {', '.join(sorted(head.imports))}"] if head.imports else []
    standard = [line for line in needed if "torch" not in line]
    others = ["import torch", "from safetensors.torch import load_model", "from torch import Tensor, nn"]
    others += [line for line in needed if "torch" in line]
    ours = ["from pathlib import Path"]
    imports = [*_sorted_imports([*standard, *math, *ours]), "", *_sorted_imports(others)]
    return "\n".join([_docstring(dag, name), "", "from __future__ import annotations", "", *imports])


def _sorted_imports(lines: Iterable[str]) -> list[str]:
    """Return import statements in the usual order: whole modules first."""
    return sorted(lines, key=lambda line: (line.startswith("from"), line))


def _docstring(dag: DagModule, name: str) -> str:
    sizes = [
        f"({', '.join('any' if size is None else str(size) for size in spec.shape)}) {spec.dtype}"
        for spec in dag.input_spec.tensors
    ]
    written = f"written by torch-dag-export {distribution_version('torch-dag-export')} with torch {torch.__version__}"
    lines = [
        f'"""{name}, {written}.', "",
        "``load()`` returns the model with its weights. It needs torch and safetensors.",
        *([f"Inputs: {'; '.join(sizes)}."] if sizes else []), '"""',
    ]  # fmt: skip
    return "\n".join(lines)
