"""Graphs kept in a folder with inputs and outputs, and loaded where their source cannot be imported."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torch_dag_core.cli.graph_calls import call_arguments
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.structure import pack
from torch_dag_core.plugins.discovery import one_line

_GRAPH, _VALUES = ".graph.safetensors", ".values.safetensors"
EQUAL = "equal"


def keep(folder: Path, name: str, dag: DagModule, inputs: Sequence[Tensor]) -> None:
    """Save a graph, inputs and its outputs for them, for `verdicts`."""
    dag.save(folder / f"{name}{_GRAPH}")
    values = {f"input {place}": tensor for place, tensor in enumerate(inputs)}
    values |= {f"output {place}": tensor for place, tensor in enumerate(_outputs(dag, inputs))}
    save_file({key: tensor.contiguous().clone() for key, tensor in values.items()}, folder / f"{name}{_VALUES}")


def verdicts(folder: Path) -> dict[str, str]:
    """Load every kept graph and return, by name, `EQUAL` or how its outputs differ from those that were kept."""
    return {path.name.removesuffix(_GRAPH): _verdict(path) for path in sorted(folder.glob(f"*{_GRAPH}"))}


def _verdict(path: Path) -> str:
    try:
        return _compared(path)
    except Exception as error:  # noqa: BLE001 - the reason is the verdict
        return one_line(error)


def _compared(path: Path) -> str:
    values = load_file(path.with_name(path.name.replace(_GRAPH, _VALUES)))
    found = _outputs(DagModule.load(path), _named(values, "input"))
    wanted = _named(values, "output")
    same = len(found) == len(wanted) and all(map(_equal, wanted, found))
    return EQUAL if same else "the outputs of the loaded graph differ"


def _named(values: dict[str, Tensor], kind: str) -> list[Tensor]:
    return [values[f"{kind} {place}"] for place in range(len(values)) if f"{kind} {place}" in values]


def _outputs(dag: DagModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    leaves: list[Tensor] = []
    torch.manual_seed(0)
    with torch.no_grad():
        result = dag(*call_arguments(dag, [tensor.clone() for tensor in inputs]))
    pack(result, lambda value: isinstance(value, Tensor), leaves)
    return leaves


def _equal(a: Tensor, b: Tensor) -> bool:
    """Compare bit for bit, so that NaNs of the same bits are equal."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b)]
    return torch.equal(*bits)


class BlockedImport(importlib.abc.MetaPathFinder):
    """Refuses the import of some packages in this process.

    Attributes:
        packages: Their names.
    """

    def __init__(self) -> None:
        self.packages: frozenset[str] = frozenset()
        sys.meta_path.insert(0, self)

    def block(self, packages: Sequence[str]) -> None:
        """Refuse the import of these packages from now on.

        Raises:
            RuntimeError: one of them has been imported already.
        """
        present = [name for name in packages if name in sys.modules]
        if present:
            message = f"{present[0]} was imported before a file was loaded, so nothing would be proved"
            raise RuntimeError(message)
        self.packages = frozenset(packages)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raise an error for a blocked package; leave all others to the finders after this one."""
        del path, target
        if fullname.partition(".")[0] in self.packages:
            message = f"{fullname} is blocked: a saved graph loads without its source"
            raise ModuleNotFoundError(message, name=fullname)
