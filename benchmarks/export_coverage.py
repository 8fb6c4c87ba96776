"""Export many models to ONNX and Python, compare each file with its graph, and write a page of the errors.

``torch-dag coverage timm --out counts.jsonl`` counts the parameters of timm's models. Then ``python
benchmarks/export_coverage.py counts.jsonl --rows rows.jsonl --out docs/coverage/export.md`` exports the smallest model
of each of timm's module files and models of other kinds (`export_models.py`), each in a process of its own. It goes on
where an earlier run with the same releases stopped. Weights (seed 0) and inputs are random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export_models import OTHERS, Subject, smallest_of_timm

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_core.atomic_files import write_text
from torch_dag_core.cli.coverage.examination import without_folders
from torch_dag_core.cli.coverage.record import CoverageFile, installed_versions, machine

FORMATS = ("onnx", "python")
LIBRARIES = (
    "timm", "torchvision", "transformers", "ultralytics", "segmentation-models-pytorch", "onnx", "onnxscript",
    "onnxruntime", "safetensors",
)  # fmt: skip
_LONGEST_REASON = 160

Row = dict[str, Any]
"""``model``, ``kind``, ``versions``, and ``cells``: the result of each format as text."""


def cells(subject: Subject) -> list[str]:
    """Return the result of each format: the largest relative error, or why there is no file."""
    try:
        dag = subject.graph()
    except td.TorchDagError as error:
        return [f"not converted: {_short(error)}"] * len(FORMATS)
    return [_exported(dag, each) for each in FORMATS]


def _exported(dag: td.DagModule, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = tde.export(dag, Path(folder) / "model", format=name)
        except td.TorchDagError as error:
            return _short(error)
    return f"{report.relative:.1e}" + ("" if report.free_batch else ", fixed batch")


def _short(error: Exception | str) -> str:
    text = without_folders(" ".join(str(error).split())).replace("|", "/")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def examined(subject: Subject, counts: Path, seconds: float) -> list[str]:
    """Return the cells of a model, found in another process that may take so long for all of them."""
    command = [sys.executable, __file__, str(counts), "--only", subject.name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return [f"more than {seconds:g} seconds for all formats"] * len(FORMATS)
    if done.returncode:
        return [_short(next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}"))] * len(FORMATS)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


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
        f"{len(rows)}. A cell has the largest relative difference from the graph, or the reason why there is no file. "
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
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds that one model may take")
    parser.add_argument("--only", help="print the cells of one model")
    given = parser.parse_args()
    subjects = [*OTHERS, *smallest_of_timm(CoverageFile.read(given.counts).parameters)]
    if given.only:
        print(json.dumps(cells(next(each for each in subjects if each.name == given.only))))
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
