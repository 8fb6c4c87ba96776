"""An exported file run in a process of its own, in which nothing of torch-dag can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from torch_dag_core.graph.structure import written
from torch_dag_core.graph.values import Slot
from torch_dag_export.errors import ExportCheckError
from torch_dag_export.python.literals import literal
from torch_dag_export.subject import ExportSubject

_SCRIPT = '''
import dataclasses, importlib.machinery, importlib.util, json, sys
from types import SimpleNamespace


class Blocked:
    """A finder that refuses torch-dag, so that the file is shown to do without it."""

    def find_spec(self, name, *_):
        if name.startswith("torch_dag"):
            raise ImportError(f"{name} is blocked while an exported file is checked")


sys.meta_path.insert(0, Blocked())
import torch
from safetensors.torch import load_file, save_file

path, weights, inputs, outputs, call, count = json.loads(sys.argv[1])
loader = importlib.machinery.SourceFileLoader("exported", path)
spec = importlib.util.spec_from_file_location("exported", path, loader=loader)
module = importlib.util.module_from_spec(spec)
sys.modules["exported"] = module
loader.exec_module(module)
model = module.load(weights)


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in tensors(item)]


given = load_file(inputs)
found = {}
for case in range(count):
    t = {int(name.partition(".")[2]): value for name, value in given.items() if name.startswith(f"{case}.")}
    torch.default_generator.manual_seed(0)
    with torch.no_grad():
        result = eval(call)
    found.update({f"{case}.{index}": each.contiguous().clone() for index, each in enumerate(tensors(result))})
save_file(found, outputs)
'''


def run_in_process(
    subject: ExportSubject, files: Sequence[Path], cases: Sequence[Sequence[Tensor]]
) -> list[list[Tensor]]:
    """Return the tensors that an exported file computes for each case.

    Raises:
        ExportCheckError: the file fails; has the end of what Python said.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.safetensors", Path(folder) / "outputs.safetensors"
        save_file(_numbered(cases), inputs)
        task = json.dumps([*map(str, (*files, inputs, outputs)), _call(subject), len(cases)])
        done = subprocess.run([sys.executable, "-c", _SCRIPT, task], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            reason = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
            message = f"the exported file fails in a process without torch-dag: {reason}; nothing was written"
            raise ExportCheckError(message)
        found = load_file(outputs)
    return [_of_case(found, case) for case in range(len(cases))]


def _numbered(cases: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all cases by the number of their case and their own."""
    pairs = [(f"{case}.{index}", tensor) for case, tensors in enumerate(cases) for index, tensor in enumerate(tensors)]
    return {name: tensor.contiguous().clone() for name, tensor in pairs}


def _of_case(tensors: Mapping[str, Tensor], case: int) -> list[Tensor]:
    numbers = sorted(int(name.partition(".")[2]) for name in tensors if name.startswith(f"{case}."))
    return [tensors[f"{case}.{number}"] for number in numbers]


def _call(subject: ExportSubject) -> str:
    """Return the call of the model on tensors named ``t[0]``, ``t[1]``, ..."""

    def leaf(value: object) -> str:
        return f"t[{value.index}]" if isinstance(value, Slot) else literal(value)

    arguments = [
        written(parameter.structure, leaf, literal, lambda _: "SimpleNamespace") for parameter in subject.parameters
    ]
    return f"model({', '.join(arguments)})"
