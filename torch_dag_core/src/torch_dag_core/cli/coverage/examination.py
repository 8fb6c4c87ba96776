"""Everything that is found out about one model, step by step, in a process of its own."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch_dag_core.analysis.cost_table import flops
from torch_dag_core.cli.coverage.check import CoverageCheck, Subject
from torch_dag_core.cli.coverage.comparison import (
    batch_of,
    batch_sizes,
    differences,
    in_double_precision,
    takes_any_batch,
    too_far,
)
from torch_dag_core.cli.coverage.kept import keep, keep_structure
from torch_dag_core.cli.coverage.library import Listed
from torch_dag_core.cli.example_choice import ExampleChoice
from torch_dag_core.cli.references import load_model
from torch_dag_core.conversion.convert import build_from_unstructured_module, find_example_inputs
from torch_dag_core.conversion.example_inputs import ExampleInputs
from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.torch_call import TorchCall
from torch_dag_core.plugins.discovery import one_line
from torch_dag_core.plugins.loading import named_contributions
from torch_dag_core.testing.awake import awaken

Row = dict[str, Any]

_LONGEST = 300
_OUR_OWN = ("torch", "torch_dag_core")


class DiffersError(TorchDagError):
    """A graph computes something else than its source."""


@dataclass(frozen=True)
class Request:
    """One model to examine.

    Attributes:
        model: Its name in the library.
        listed: How it is built and called.
        folder: Where graphs are kept for the comparison in another process.
        has_weights: False builds the model without memory, so that only its structure is examined.
    """

    model: str
    listed: Listed
    folder: Path
    has_weights: bool = True


@dataclass
class Examination:
    """The examination of one model.

    Attributes:
        request: What is asked for.
        report: Called with the row at the beginning of every step, and at the end.
        row: What is known.
    """

    request: Request
    report: Callable[[Row], None]
    row: Row = field(default_factory=dict)

    def run(self) -> Row:
        """Take every step that the ones before allow, and return the row."""
        self.row = {"model": self.request.model, "has_weights": self.request.has_weights, "failures": {}, "seconds": {}}
        torch.manual_seed(0)
        model = self._step("build", self._build)
        example = model and self._step("inputs", partial(self._inputs, model))
        dag = example and self._step("convert", partial(self._convert, model, example))
        if dag:
            self._examine(model, dag, example)
        self.row["peak_megabytes"] = peak_megabytes()
        self.row["step"] = ""
        self.report(self.row)
        return self.row

    def _examine(self, model: nn.Module, dag: DagModule, example: ExampleInputs) -> None:
        if self.request.has_weights:
            self._step("compare", partial(self._compare, model, dag, example))
        del model
        self._step("cost", partial(self._cost, dag))
        kept = partial(self._keep, example)
        self._step("save", partial(kept, "graph", dag))
        for check in named_contributions("torch_dag_coverage_checks", CoverageCheck).values():
            self._step(check.name, partial(self._check, check, Subject(dag, self.request.has_weights, kept)))

    def _step(self, name: str, take: Callable[[], Any]) -> Any:
        """Take one step; an error is the reason of its failure, under its name, and gives None."""
        self.row["step"] = name
        self.report(self.row)
        start = time.perf_counter()
        try:
            return take()
        except Exception as error:  # noqa: BLE001 - whatever a model raises is the result
            self.row["failures"][name] = reason_of(error)
            return None
        finally:
            self.row["seconds"][name] = round(time.perf_counter() - start, 2)

    # Steps -----------------------------------------------------------------------------------------------------

    def _build(self) -> nn.Module:
        listed = self.request.listed
        if not self.request.has_weights:
            with torch.device("meta"):
                model = load_model(listed.reference, listed.arguments).eval()
        else:
            model = awaken(load_model(listed.reference, listed.arguments).eval())
        self.row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        self.row["packages"] = source_packages(model)
        return model

    def _inputs(self, model: nn.Module) -> ExampleInputs:
        given = ExampleChoice(shapes=self.request.listed.inputs).inputs()
        example = ExampleInputs.of(model, find_example_inputs(model) if given is None else given)
        self.row["inputs"] = ["x".join(map(str, tensor.shape[1:])) for tensor in example.tensors]
        return example

    def _convert(self, model: nn.Module, example: ExampleInputs) -> DagModule:
        dag = self._converted(model, example)
        calls = Counter(v.module.function for v in dag.inner_vertices if isinstance(v.module, TorchCall))
        shapes = [spec.shape for spec in dag.input_spec.tensors]
        self.row["vertices"] = len(dag.inner_vertices)
        self.row["torch_calls"] = dict(sorted(calls.items()))
        self.row["free_batch"] = takes_any_batch(dag)
        self.row["free_size"] = any(size is None for shape in shapes for size in shape[1:])
        self.row["notes"] = [without_folders(note)[:_LONGEST] for note in dag.input_spec.notes]
        return dag

    def _converted(self, model: nn.Module, example: ExampleInputs) -> DagModule:
        """Convert for both modes, or else for evaluation alone, with the reason in the row."""
        arguments = example.call_arguments(example.tensors)
        try:
            return build_from_unstructured_module(model, arguments)
        except TraceError as error:
            try:
                dag = build_from_unstructured_module(model, arguments, modes="eval")
            except TraceError:
                raise error from None
            self.row["evaluation_only"] = reason_of(error)
            return dag

    def _compare(self, model: nn.Module, dag: DagModule, example: ExampleInputs) -> None:
        found = differences(model, dag, example)
        self.row["differences"] = found
        self.row["double"] = in_double_precision(model, dag, example, found)
        reason = too_far(found, self.row["double"])
        if reason:
            raise DiffersError(reason)

    def _cost(self, dag: DagModule) -> None:
        table = flops(dag)
        self.row["flops"] = table.flops
        self.row["flops_unknown"] = sorted(table.unknown)

    def _keep(self, example: ExampleInputs, name: str, dag: DagModule) -> None:
        if self.request.has_weights:
            keep(self.request.folder, name, dag, batch_of(example, batch_sizes(dag, example)[0]))
        else:
            keep_structure(self.request.folder, name, dag)

    def _check(self, check: CoverageCheck, subject: Subject) -> None:
        self.row[check.name] = dict(check.run(subject))


# Texts -----------------------------------------------------------------------------------------------------------


def reason_of(error: Exception) -> str:
    """Return an error as one line of limited length, without the folders of this machine."""
    return without_folders(one_line(error))[:_LONGEST]


def without_folders(text: str) -> str:
    """Name a file of a package from the package on, and any other by its name alone."""
    return re.sub(r"/[^\s:'\"]*/site-packages/|(?<![\w.])/(?:[\w.-]+/)+(?=[\w.-]+\.py\b)", "", text)


def source_packages(model: nn.Module) -> list[str]:
    """Return the packages that the classes of a model come from, without torch and ours."""
    packages = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return sorted(packages.difference(_OUR_OWN))


def peak_megabytes() -> int | None:
    """Return the most memory that this process had at once, libraries included; None where it is not known."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
