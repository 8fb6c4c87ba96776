"""Export many models to several formats, compare each file with its graph, and write a page of the errors.

``torch-dag coverage timm --out counts.jsonl`` counts the parameters of timm's models. Then ``python
benchmarks/export_coverage.py counts.jsonl --rows rows.jsonl --out docs/coverage/export.md`` exports the smallest model
of each of timm's module files and models of other kinds (`export_models.py`), each in a process of its own, which is
begun anew after a format that takes too long or ends it. The run goes on where an earlier one with the same releases
stopped. Weights (seed 0) and inputs are random.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export_models import OTHERS, Subject, smallest_of_timm

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_core.atomic_files import write_text
from torch_dag_core.cli.coverage.examination import without_folders
from torch_dag_core.cli.coverage.record import CoverageFile, installed_versions, machine

FORMATS = ("onnx", "openvino", "executorch", "litert", "python")
LIBRARIES = (
    "timm", "torchvision", "transformers", "ultralytics", "segmentation-models-pytorch", "onnx", "onnxscript",
    "onnxruntime", "openvino", "executorch", "litert-torch", "ai-edge-litert", "safetensors",
)  # fmt: skip
_LONGEST_REASON = 160
_TIMEOUT = "Timeout ("
"""What `faulthandler` writes when time is up."""
_CELL = "cell: "
"""What begins a line with a result among all that libraries print."""

Row = dict[str, Any]
"""``model``, ``kind``, ``versions``, and ``cells``: the result of each format as text."""


def cells(subject: Subject, formats: Sequence[str], seconds: float) -> Iterator[str]:
    """Yield the result of each format: the largest relative error, or why there is no file.

    The process ends where a format takes longer, in whichever language it computes.
    """
    try:
        dag = subject.graph()
    except td.TorchDagError as error:
        yield from [f"not converted: {_short(error)}"] * len(formats)
        return
    for each in formats:
        faulthandler.dump_traceback_later(seconds, exit=True)
        found = _exported(dag, each)
        faulthandler.cancel_dump_traceback_later()
        yield found


def _exported(dag: td.DagModule, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = tde.export(dag, Path(folder) / "model", format=name)
        except td.TorchDagError as error:
            return _short(error)
    fixed = tde.export_formats()[name].free_batch and not report.free_batch
    return f"{report.relative:.1e}{', fixed batch' if fixed else ''}"


def _short(error: Exception | str) -> str:
    text = without_folders(" ".join(str(error).split())).replace("|", "/")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def examined(subject: Subject, counts: Path, seconds: float) -> list[str]:
    """Return the cells of a model, found in other processes that may take so long for each of them."""
    found: list[str] = []
    while len(found) < len(FORMATS):
        command = [
            sys.executable, __file__, str(counts), "--only", subject.name, "--formats", *FORMATS[len(found) :],
            "--time-limit", str(seconds),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found += [line.removeprefix(_CELL) for line in done.stdout.splitlines() if line.startswith(_CELL)]
        if len(found) < len(FORMATS):
            found.append(_end(done, seconds))
    return found


def _end(done: subprocess.CompletedProcess[str], seconds: float) -> str:
    """Return why a process ended before its time."""
    if _TIMEOUT in done.stderr:
        return f"more than {seconds:g} seconds"
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    return _short(next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}"))


def versions() -> dict[str, str]:
    """Return the releases of all distributions that decide about the results."""
    return installed_versions(*LIBRARIES)


def read_rows(path: Path) -> dict[str, Row]:
    """Return the rows of an earlier run by model, without those that other releases gave."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    now = versions()
    return {row["model"]: row for row in map(json.loads, lines) if row["versions"] == now}


def page(rows: Iterable[Row], planned: int) -> str:
    """Return the page."""
    rows = list(rows)
    good = [sum(_is_number(row["cells"][place]) for row in rows) for place in range(len(FORMATS))]
    totals = ", ".join(f"{name} {count}" for name, count in zip(FORMATS, good, strict=True))
    first = (
        f"Written by `benchmarks/export_coverage.py` on {datetime.now(UTC):%Y-%m-%d}: {len(rows)} of {planned} models."
    )
    meaning = (
        f"Exported within 1e-4 of the largest output element, on two batch sizes where the batch is free: {totals} of "
        f"{len(rows)}; LiteRT's models keep the batch size of the example. A cell has the largest relative difference "
        "from the graph, or the reason why there is no file. "
        "Weights and inputs are random; models of transformers have small sizes."
    )
    made_with = [f"- {', '.join(f'{name} {version}' for name, version in versions().items())}", f"- {machine()}"]
    timm = [row for row in rows if row["model"].startswith("timm:")]
    others = [row for row in rows if row not in timm]
    tables = [
        ["## The smallest model of each module file of timm"], _table("module", timm),
        ["## Other models"], _table("kind", others),
    ]  # fmt: skip
    parts = (["# Coverage of export"], [first], made_with, [meaning], *tables)
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _table(first: str, rows: Iterable[Row]) -> list[str]:
    lines = [f"| `{row['kind']}` | `{row['model']}` | {' | '.join(row['cells'])} |" for row in rows]
    return [f"| {first} | model | {' | '.join(FORMATS)} |", f"|---|---|{'---|' * len(FORMATS)}", *sorted(lines)]


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit()


def main() -> None:
    """Export the models, and write the page after each of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=Path, help="file of `torch-dag coverage timm`, which counts parameters")
    parser.add_argument("--rows", type=Path, help="file of results, which another run goes on with")
    parser.add_argument("--out", type=Path, help="the page")
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds that one format of a model may take")
    parser.add_argument("--only", help="print the cells of one model")
    parser.add_argument("--formats", nargs="+", default=FORMATS, help="those that --only prints the cells of")
    given = parser.parse_args()
    subjects = [*OTHERS, *smallest_of_timm(CoverageFile.read(given.counts).parameters)]
    if given.only:
        chosen = next(each for each in subjects if each.name == given.only)
        for cell in cells(chosen, given.formats, given.time_limit):
            print(f"{_CELL}{cell}", flush=True)
        return
    planned = {subject.name for subject in subjects}
    rows = {name: row for name, row in read_rows(given.rows).items() if name in planned}
    for subject in subjects:
        if subject.name not in rows:
            made = {"model": subject.name, "kind": subject.kind, "versions": versions()}
            rows[subject.name] = {**made, "cells": examined(subject, given.counts, given.time_limit)}
            write_text(given.rows, "".join(f"{json.dumps(row)}\n" for row in rows.values()))
            print(subject.name, *rows[subject.name]["cells"], flush=True)
        write_text(given.out, page(rows.values(), len(subjects)))


if __name__ == "__main__":
    main()
