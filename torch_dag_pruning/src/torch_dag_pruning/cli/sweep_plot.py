"""Error against FLOPs of a sweep as a picture, drawn by matplotlib."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_dag_core.atomic_files import replacing
from torch_dag_core.errors import InputError
from torch_dag_pruning.sweep import Row


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw one line for each criterion and repair, and write it in the format that the suffix of the path names.

    Raises:
        InputError: matplotlib is not installed, or does not write such files.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        message = "plots need matplotlib; install it with `pip install torch-dag-pruning[plot]`"
        raise InputError(message) from error
    figure = figures.Figure(figsize=(7, 4.5), layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    kind = path.suffix.removeprefix(".")
    if kind not in kinds:
        message = f"{str(path)!r} must end in one of {', '.join(f'.{each}' for each in sorted(kinds))}"
        raise InputError(message)
    _draw(figure.add_subplot(), rows)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind)


def _draw(axes: Any, rows: Sequence[Row]) -> None:
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.flops is not None and row.error is not None:
            lines[f"{row.criterion}, {row.recover}"].append((100 * row.flops, 100 * row.error))
    for label, points in sorted(lines.items()):
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, marker="o", label=label)
    axes.set_xlabel("FLOPs left (%)")
    axes.set_ylabel("error of the outputs (%)")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.3)
    if lines:
        axes.legend(title="criterion, repair")
