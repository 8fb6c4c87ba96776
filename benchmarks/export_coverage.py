"""Export the smallest model of timm's module files to ONNX, pt2 and Python, and write a page with the errors.

``torch-dag coverage timm --out rows.jsonl`` counts the parameters of all models; run ``python
benchmarks/export_coverage.py rows.jsonl --out docs/coverage/export.md`` with its file. Weights (seed 0) and inputs are
random, and inputs have the size that each model is made for.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path

import timm
import torch

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_core.atomic_files import write_text
from torch_dag_core.cli.coverage.record import CoverageFile, installed_versions, machine
from torch_dag_core.cli.references import load_model

FORMATS = ("pt2", "onnx", "python")
RUNTIMES = ("onnx", "onnxscript", "onnxruntime", "safetensors")
_LONGEST_REASON = 160


def smallest_models(parameters: dict[str, int | None], most: float) -> dict[str, str]:
    """Return the smallest model of each module file of timm by the name of the module; none with more parameters."""
    known = sorted((count, name) for name, count in parameters.items() if count is not None and count <= most)
    found: dict[str, str] = {}
    for _, name in known:
        module = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
        found.setdefault(module, name)
    return dict(sorted(found.items()))


def spread(models: dict[str, str], count: int) -> dict[str, str]:
    """Return so many of the models, evenly spread over the alphabet."""
    names = list(models)
    chosen = sorted({round(index * (len(names) - 1) / max(count - 1, 1)) for index in range(min(count, len(names)))})
    return {names[index]: models[names[index]] for index in chosen}


def cells(name: str, formats: tuple[str, ...]) -> list[str]:
    """Return the result of each format as text: the error and the ratio of latencies, or why there is no file."""
    torch.manual_seed(0)
    try:
        dag = td.build_from_unstructured_module(load_model(f"timm:{name}").eval())
    except td.TorchDagError as error:
        return [_short(error)] * len(formats)
    return [_exported(dag, each) for each in formats]


def _exported(dag: td.DagModule, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = tde.export(dag, Path(folder) / "model", format=name)
        except td.TorchDagError as error:
            return _short(error)
    batch = "" if report.free_batch else ", fixed batch"
    return f"{report.relative:.1e}, {report.latency_ratio:.2f} x{batch}"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()).replace("|", "/")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def page(rows: dict[str, tuple[str, list[str]]], modules: int, most: float) -> str:
    """Return the page."""
    versions = installed_versions("timm") | {name: _version(name) for name in RUNTIMES}
    failed = [
        sum(not cell[0].isdigit() for cell in column) for column in zip(*(row for _, row in rows.values()), strict=True)
    ]
    totals = ", ".join(f"{name} {len(rows) - bad}" for name, bad in zip(FORMATS, failed, strict=True))
    lines = [f"| `{module}` | `{name}` | {' | '.join(row)} |" for module, (name, row) in rows.items()]
    sample = f"{len(rows)} of the {modules} module files of timm that have one of at most {most / 1e6:g} M parameters"
    first = (
        f"Written by `benchmarks/export_coverage.py` on {datetime.now(UTC):%Y-%m-%d}. "
        f"A sample: the smallest model of {sample}."
    )
    meaning = (
        f"Exported within 1e-4 of the largest output element, on two batch sizes: {totals} of {len(rows)}. A cell has "
        "the largest relative difference from the graph and the time of one call in the runtime, divided by that of "
        "the graph; or the reason why there is no file."
    )
    made_with = [f"- {', '.join(f'{name} {version}' for name, version in versions.items())}", f"- {machine()}"]
    head = [f"| module | model | {' | '.join(FORMATS)} |", f"|---|---|{'---|' * len(FORMATS)}"]
    parts = (["# Coverage of export"], [first], made_with, [meaning], [*head, *lines])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _version(name: str) -> str:
    """Return the version of an installed distribution."""
    return installed_versions(name)[name]


def main() -> None:
    """Export the models and write the page after each of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="file of `torch-dag coverage timm`, which counts parameters")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=int, default=1000, help="how many to export, evenly spread")
    parser.add_argument("--max-parameters", type=float, default=12.0, help="in millions")
    given = parser.parse_args()
    most = given.max_parameters * 1e6
    models = smallest_models(CoverageFile.read(given.rows).parameters, most)
    rows: dict[str, tuple[str, list[str]]] = {}
    for module, name in spread(models, given.models).items():
        rows[module] = name, cells(name, FORMATS)
        print(module, *rows[module], flush=True)
        write_text(given.out, page(rows, len(models), most))


if __name__ == "__main__":
    main()
