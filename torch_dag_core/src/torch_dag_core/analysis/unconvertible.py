"""Finding the module classes of a model that cannot be converted into a graph, and the reasons."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.convert import build_from_unstructured_module, find_example_inputs
from torch_dag_core.conversion.example_inputs import as_arguments
from torch_dag_core.errors import TorchDagError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.structure import pack, unpack
from torch_dag_core.ops.torch_call import TorchCall
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import Registry, qualified_name
from torch_dag_core.tracing.exclusive import exclusive
from torch_dag_core.tracing.restoring import restored


@dataclass(frozen=True)
class ClassReport:
    """The outcome for one module class of the model.

    Attributes:
        name: Its dotted name.
        path: Path of its first instance; empty for the model itself.
        count: Number of instances.
        status: "op" (one vertex), "traced" (becomes the vertices of its calls), "not called", or "fails".
        reason: Why it fails.
    """

    name: str
    path: str
    count: int
    status: str
    reason: str = ""


@dataclass(frozen=True)
class ConvertibilityReport:
    """The result of `find_unconvertible`.

    Attributes:
        classes: Every module class of the model, innermost first.
        remedy: The classes to pass as ``atomic_modules`` so that the rest of the model converts; empty if the model
            converts as it is, or if that does not help.
        opaque: Names of the vertices that call a torch function without an op of its own.
    """

    classes: tuple[ClassReport, ...]
    remedy: tuple[type[nn.Module], ...] = ()
    opaque: tuple[str, ...] = ()

    @property
    def unconvertible(self) -> tuple[ClassReport, ...]:
        """The classes that fail themselves, not because of a class inside them."""
        return tuple(report for report in self.classes if report.status == "fails")

    @property
    def converts(self) -> bool:
        """Whether the model converts as it is."""
        return not self.unconvertible

    def __str__(self) -> str:
        """Return what fails, why, and what to do about it."""
        if self.converts:
            opaque = f"; opaque: {', '.join(self.opaque)}" if self.opaque else ""
            return f"the model converts: {len(self.classes)} module classes{opaque}"
        lines = [f"{each.name} ({each.path or 'the model itself'}): {each.reason}" for each in self.unconvertible]
        if self.remedy:
            kept = ", ".join(cls.__name__ for cls in self.remedy)
            lines.append(f"the rest converts with atomic_modules=({kept},)")
        return "\n".join(lines)


def find_unconvertible(
    model: nn.Module, example_inputs: Any = None, *, registry: Registry | None = None
) -> ConvertibilityReport:
    """Try to convert a model and, if that fails, each of its module classes on the inputs that it is called with.

    For that the model is run once, in evaluation mode, on the example inputs. Classes inside a class that fail are kept
    whole while it is tried, so that it counts as failing only for a reason of its own.

    Args:
        model: Any module.
        example_inputs: As `build_from_unstructured_module` takes them.
        registry: The vocabulary; that of the installed plugins by default.
    """
    registry = registry or default_registry()
    inputs = find_example_inputs(model) if example_inputs is None else example_inputs
    try:
        dag = build_from_unstructured_module(model, inputs, registry=registry)
    except TorchDagError:
        return _search(model, inputs, registry)
    return ConvertibilityReport(tuple(_quick_reports(model, registry)), opaque=_opaque(dag))


def _opaque(dag: DagModule) -> tuple[str, ...]:
    return tuple(vertex.name for vertex in dag.inner_vertices if isinstance(vertex.module, TorchCall))


def _quick_reports(model: nn.Module, registry: Registry) -> Iterator[ClassReport]:
    for cls, path, count in _classes(model):
        yield ClassReport(qualified_name(cls), path, count, _status(model, path, registry))


def _status(model: nn.Module, path: str, registry: Registry) -> str:
    return "op" if path and registry.for_module(model.get_submodule(path)) is not None else "traced"


def _classes(model: nn.Module) -> list[tuple[type[nn.Module], str, int]]:
    """List (class, path of the first instance, count), innermost first."""
    found: dict[type[nn.Module], list[str]] = {}
    for path, module in model.named_modules():
        found.setdefault(type(module), []).append(path)
    order = sorted(found.items(), key=lambda item: -(max(path.count(".") + 1 if path else 0 for path in item[1])))
    return [(cls, paths[0], len(paths)) for cls, paths in order]


def _search(model: nn.Module, inputs: Any, registry: Registry) -> ConvertibilityReport:
    calls = _calls(model, inputs)
    failing: list[type[nn.Module]] = []
    reports = []
    for cls, path, count in _classes(model):
        status, reason = _status(model, path, registry), ""
        if path not in calls:
            status = "not called" if status == "traced" else status
        elif status == "traced":
            status, reason = _try(model.get_submodule(path), calls[path], failing, registry)
            failing += [cls] if status == "fails" and path else []
        reports.append(ClassReport(qualified_name(cls), path, count, status, reason))
    rest_converts = bool(reports) and reports[-1].status != "fails"
    return ConvertibilityReport(tuple(reports), tuple(failing) if rest_converts else ())


def _try(module: nn.Module, call: Any, atomic: list[type[nn.Module]], registry: Registry) -> tuple[str, str]:
    try:
        build_from_unstructured_module(module, call, atomic_modules=tuple(atomic), registry=registry)
    except TorchDagError as error:
        return "fails", str(error)
    return "traced", ""


def _calls(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """Run the model and return the arguments of the first call of each submodule, as tensors without data."""
    calls: dict[str, Any] = {}

    def hook(path: str) -> Any:
        def record(_: nn.Module, args: Any, kwargs: Any) -> None:
            calls.setdefault(path, _without_data((args, kwargs)))

        return record

    handles = [m.register_forward_pre_hook(hook(path), with_kwargs=True) for path, m in model.named_modules()]
    args, kwargs = as_arguments(copy.deepcopy(inputs))
    try:
        with exclusive(model), restored(model), torch.no_grad():
            model.eval()(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _without_data(value: Any) -> Any:
    tensors: list[Tensor] = []
    template = pack(value, lambda item: isinstance(item, Tensor), tensors)
    return unpack(template, [tensor.detach().to("meta") for tensor in tensors])
