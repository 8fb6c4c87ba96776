"""`export`: a graph written in another format, compared with what it computes, and put in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch_dag_core.atomic_files import replacing
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_export.checking import default_tolerance, latencies, output_checks
from torch_dag_export.errors import ExportCheckError, ExportError
from torch_dag_export.format import ExportFormat, find_format
from torch_dag_export.report import ExportReport
from torch_dag_export.subject import ExportSubject, subject_of


def export(
    dag: DagModule,
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  the word of the field, as in torch.export
    example_inputs: Any = None,
    free_batch: bool = True,
    check: bool | float = True,
) -> ExportReport:
    """Write a graph in a format that other runtimes load, and compare the written model with the graph.

    The model computes what the graph computes in evaluation; the format ``"python"`` holds both modes. The file is
    written beside ``path`` under a temporary name, loaded in its runtime, and run on the example inputs and, where the
    batch size is free, on a second batch size. It takes its name if all outputs agree; otherwise no file is left, and
    one that was there before is unchanged.

    Args:
        dag: The graph. Its mode is restored; one on another device than the CPU is copied.
        path: The file to write.
        format: Name of the format, one of `export_formats`; by default the ending of ``path`` says which.
        example_inputs: A tensor, a tuple of arguments, a dict of keyword arguments, or a pair of both; by default
            random numbers of the sizes that the graph remembers.
        free_batch: Whether the model is to take any batch size, where the graph and the format do.
        check: Whether to compare the model with the graph. A number is the largest relative difference that is
            accepted: of two output elements, divided by the largest element of the graph's output. By default that is
            1e-8 for float64, 1e-4 for float32, 1e-2 for float16 and 5e-2 for bfloat16.

    Raises:
        UnknownFormatError: there is no such format.
        MissingPackageError: the format needs a package that is not installed.
        ExportError: the graph cannot be written in this format.
        ExportCheckError: the written model does not compute what the graph computes, or does not run.
        InputError: the graph does not take the example inputs, or there are none.
        OSError: the file cannot be written.
    """
    require_graphs("export()", dag)
    used = find_format(format, path)
    used.require_packages()
    files = used.files(path)
    free = free_batch and used.free_batch
    with subject_of(dag, example_inputs, free_batch=free) as subject, _temporary(files) as written:
        used.write(subject, written)
        report = ExportReport(
            format=used.name, files=files, size=sum(file.stat().st_size for file in written),
            input_names=subject.input_names, output_names=subject.output_names, free_batch=subject.free_batch,
            tolerance=default_tolerance(subject) if isinstance(check, bool) else check,
        )  # fmt: skip
        return report if check is False else _checked(report, subject, used, written)


@contextmanager
def _temporary(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Give temporary files that take the places of these when the block ends without an error."""
    with ExitStack() as stack:
        yield [stack.enter_context(replacing(file)) for file in files]


def _checked(report: ExportReport, subject: ExportSubject, used: ExportFormat, files: Sequence[Path]) -> ExportReport:
    """Return the report with what the comparison found.

    Raises:
        ExportCheckError: the outputs differ, or the runtime fails.
    """
    try:
        report = replace(report, checks=output_checks(subject, used, files))
        if report.relative <= report.tolerance:
            graph, runtime = latencies(subject, used, files)
            report = replace(report, graph_seconds=graph, runtime_seconds=runtime)
    except ExportError:
        raise
    except Exception as error:
        message = f"the runtime of {used.name} fails on the exported model: {type(error).__name__}: {error}"
        raise ExportCheckError(message) from error
    if not report.relative <= report.tolerance:
        message = f"the exported model {_difference(report)} from the graph, more than {report.tolerance:g}; {_ADVICE}"
        raise ExportCheckError(message, report)
    return report


_ADVICE = "nothing was written; accept more with check=TOLERANCE, or --tolerance"


def _difference(report: ExportReport) -> str:
    if math.isinf(report.relative):
        return "returns tensors of other sizes, or numbers that are not finite, that differ"
    return f"differs by {report.relative:.3g} of the largest output element"
