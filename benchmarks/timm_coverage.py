"""Convert every timm model and compare it with its source; writes ``results/timm_coverage.csv`` and a summary.

Models that the CSV already has are skipped, so a run that was cut short goes on where it stopped; ``--again REASON``
repeats those whose reason contains a text. Run with OMP_NUM_THREADS=1 and one process a core (``--shard``).
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "timm_coverage.csv"
COLUMNS = (
    "model", "parameters_M", "input", "vertices", "torch_calls", "unusual", "functions", "free_batch", "free_space",
    "error_batch_1", "error_batch_3", "odd_size", "error_training", "other_keys", "cpu_seconds", "notes", "reason",
)  # fmt: skip
CLOSE = 1e-5


class Worker:
    """A process that examines models; it is replaced when it dies or takes too long."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(FOLDER / "timm_comparison.py")], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.answers.put(line)
        self.answers.put("")

    def examine(self, name: str, *, compares: bool, timeout: float) -> dict[str, Any]:
        """Return the worker's row, or one that says why there is none; then the worker is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, compares]) + "\n")
        self.process.stdin.flush()
        try:
            line = self.answers.get(timeout=timeout)
        except queue.Empty:
            line, reason = "", f"took more than {timeout:.0f} s"
        else:
            reason = f"the process died ({self.process.poll()})"
        if line:
            row: dict[str, Any] = json.loads(line)
            return row
        self.stop()
        return {"model": name, "reason": reason}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    @property
    def alive(self) -> bool:
        """Whether it can take another model."""
        return self.process.poll() is None


def describe(name: str) -> tuple[float, str]:
    """Return a model's millions of parameters and what it is made of, without spending memory on it."""
    import timm
    import torch

    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except Exception as error:  # noqa: BLE001
        return float("inf"), f"cannot be built without memory: {error}"
    classes = sorted({type(module).__name__ for module in model.modules()})
    return sum(p.numel() for p in model.parameters()) / 1e6, f"{type(model).__module__}: {' '.join(classes)}"


def descriptions(names: Iterable[str]) -> dict[str, tuple[float, str]]:
    """Return what `describe` says of each model; remembered in the temporary folder, since it takes minutes."""
    cache = Path(tempfile.gettempdir()) / f"timm_{metadata.version('timm')}_models.json"
    known = json.loads(cache.read_text()) if cache.exists() else {}
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: describe(name) for name in missing}
        cache.write_text(json.dumps(known, sort_keys=True))
    return known


def one_of_a_kind(names: list[str], known: dict[str, tuple[float, str]]) -> list[str]:
    """Return the smallest model of each set of module classes."""
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (known[name][0], name)):
        chosen.setdefault(known[name][1], name)
    return sorted(chosen.values())


def select(options: argparse.Namespace) -> list[tuple[str, bool]]:
    """Return the models to examine, small ones first, and whether each is compared by running it."""
    import timm

    names = timm.list_models(options.filter) if options.filter else timm.list_models()
    known = descriptions(names)
    names = [name for name in names if known[name][0] <= options.max_params]
    if options.kinds:
        names = one_of_a_kind(names, known)
    part, parts = map(int, options.shard.split("/"))
    names = sorted(names, key=lambda name: (known[name][0], name))[part - 1 :: parts]
    done = {row["model"]: row["reason"] for row in read(options.output)}
    again = options.again is not None
    names = [n for n in names if n not in done or (again and done[n] and options.again in done[n])]
    return [(name, known[name][0] <= options.max_compared) for name in names]


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of the CSV, the latest of each model, by name."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    return [rows[name] for name in sorted(rows)]


def write(path: Path, rows: Iterable[dict[str, Any]], mode: str = "a") -> None:
    """Append rows, under a header where the file is new."""
    path.parent.mkdir(exist_ok=True)
    with path.open(mode, newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def failed(row: dict[str, str]) -> bool:
    """Tell whether a model did not convert."""
    return not row["vertices"]


def errors(rows: list[dict[str, str]], column: str) -> list[float]:
    """Return the numbers in a column."""
    return [float(row[column]) for row in rows if row[column] not in ("", "refused", "source fails")]


def summary(rows: list[dict[str, str]]) -> str:
    """Return the counts that matter, as Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("timm", "torch"))
    machine = f"Python {platform.python_version()}, {platform.machine()}"
    converted = [row for row in rows if not failed(row)]
    seconds = sorted(float(row["cpu_seconds"]) for row in converted)
    counts = {
        "examined": len(rows),
        "converted": len(converted),
        "with a free batch size": sum(row["free_batch"] == "True" for row in converted),
        "with a free image size": sum(row["free_space"] == "True" for row in converted),
        "with calls that have no op of their own": sum(row["torch_calls"] != "0" for row in converted),
        "that load a state dict of the source, strictly": sum(row["other_keys"] == "0" for row in converted),
    }
    lines = ["# Coverage of timm", "", f"Written by `benchmarks/timm_coverage.py` on {datetime.now(UTC):%Y-%m-%d}:"]
    lines += [f"{versions}, {machine}.", "", "| models | |", "|---|---|"]
    lines += [f"| {what} | {count} |" for what, count in counts.items()]
    for column in ("error_batch_1", "error_batch_3", "error_training", "odd_size"):
        found = errors(converted, column)
        exact, close = sum(e == 0 for e in found), sum(e <= CLOSE for e in found)
        lines.append(f"| {column}: compared, equal bit for bit, within {CLOSE} | {len(found)}, {exact}, {close} |")
    if seconds:
        lines += ["", f"CPU seconds a conversion: median {statistics.median(seconds):.2f}, longest {seconds[-1]:.1f}."]
    lines += ["", "## Not converted, or not comparable", ""]
    lines += [f"- `{row['model']}`: {row['reason']}" for row in rows if row["reason"]] or ["None."]
    return "\n".join(lines) + "\n"


def survey(options: argparse.Namespace) -> None:
    """Examine the selected models and append a row for each."""
    models = select(options)
    worker = Worker()
    for place, (name, compares) in enumerate(models):
        if not worker.alive:
            worker = Worker()
        row = worker.examine(name, compares=compares, timeout=options.timeout)
        write(options.output, [row])
        print(f"{place + 1}/{len(models)} {name}: {row['reason'] or 'ok'}", flush=True)
    worker.stop()


def main() -> None:
    """Survey, then sort the CSV and write the summary beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", help="wildcard of model names")
    parser.add_argument("--kinds", action="store_true", help="of models made of the same classes only the smallest")
    parser.add_argument("--max-params", type=float, default=120.0, help="millions; larger models are left out")
    parser.add_argument("--max-compared", type=float, default=120.0, help="millions; larger ones are not run")
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th model, from the i-th")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a model may take")
    parser.add_argument("--again", help="repeat models whose reason contains this text")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    survey(options)
    rows = read(options.output)
    write(options.output, rows, mode="w")
    options.output.with_suffix(".md").write_text(summary(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
