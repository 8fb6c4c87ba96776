"""Graphs kept in a folder, and loaded where their source cannot be imported.

A graph with weights is kept with inputs and outputs, and has to compute the same outputs after loading. Of a graph
without weights the structure alone is kept: the JSON document of a saved file, with the shape of each tensor. The graph
that is built from it has to have the same document.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torch_dag_core.cli.graph_calls import call_arguments
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.structure import pack
from torch_dag_core.plugins.discovery import one_line
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.serialization.catalogue import chosen_registry
from torch_dag_core.serialization.describe import describe
from torch_dag_core.serialization.node import parse, to_text
from torch_dag_core.serialization.rebuild import rebuild
from torch_dag_core.serialization.walk import leaves, tensor_places

_GRAPH, _VALUES, _STRUCTURE = ".graph.safetensors", ".values.safetensors", ".structure.json"
EQUAL = "equal"


def keep(folder: Path, name: str, dag: DagModule, inputs: Sequence[Tensor]) -> None:
    """Save a graph, inputs and its outputs for them, for `verdicts`."""
    dag.save(folder / f"{name}{_GRAPH}")
    values = {f"input {place}": tensor for place, tensor in enumerate(inputs)}
    values |= {f"output {place}": tensor for place, tensor in enumerate(_outputs(dag, inputs))}
    save_file({key: tensor.contiguous().clone() for key, tensor in values.items()}, folder / f"{name}{_VALUES}")


def keep_structure(folder: Path, name: str, dag: DagModule) -> None:
    """Save the structure of a graph, without the values of its tensors, for `verdicts`."""
    (folder / f"{name}{_STRUCTURE}").write_text(_structure(dag, chosen_registry(None)), encoding="utf-8")


def _structure(dag: DagModule, registry: Registry) -> str:
    places = (place for leaf in leaves(dag) for place in tensor_places(leaf))
    shapes = {place.name: list(place.tensor.shape) for place in places}
    return to_text({**describe(dag, registry), "tensors": shapes})


def verdicts(folder: Path) -> dict[str, str]:
    """Load everything that was kept and return, by name, `EQUAL` or in what it differs from what was kept.

    The name of a structure is ``structure of NAME``.
    """
    graphs = {path.name.removesuffix(_GRAPH): _verdict(_outputs_compared, path) for path in _kept(folder, _GRAPH)}
    structures = {
        f"structure of {path.name.removesuffix(_STRUCTURE)}": _verdict(_structure_compared, path)
        for path in _kept(folder, _STRUCTURE)
    }
    return graphs | structures


def _kept(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def _verdict(compare: Callable[[Path], str], path: Path) -> str:
    try:
        return compare(path)
    except Exception as error:  # noqa: BLE001 - the reason is the verdict
        return one_line(error)


def _structure_compared(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    registry = chosen_registry(None)
    dag = rebuild(parse(text, "graph document"), registry)
    dag.verify()
    return EQUAL if _structure(dag, registry) == text else "the structure of the loaded graph differs"


def _outputs_compared(path: Path) -> str:
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
