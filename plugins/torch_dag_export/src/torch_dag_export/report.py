"""What an export wrote, and how the exported model compares with the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OutputCheck:
    """The comparison of the exported model with the graph on one set of inputs.

    Attributes:
        shapes: Sizes of the inputs.
        relative: The largest absolute difference of two output elements, divided by the largest absolute element of
            the graph's output; infinite where sizes differ.
        same_argmax: The share of rows of the outputs (along their last dimension) whose largest element is at the
            same position; None where no output is a batch of rows of floating-point numbers.
    """

    shapes: tuple[tuple[int, ...], ...]
    relative: float
    same_argmax: float | None

    def __str__(self) -> str:
        """Return one line."""
        sizes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        argmax = "" if self.same_argmax is None else f", same argmax in {self.same_argmax:.2%} of rows"
        return f"inputs {sizes}: relative difference {self.relative:.2g}{argmax}"


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        format: Name of the format.
        files: The files that were written, the model first.
        size: Their size in bytes, together.
        input_names: Names of the inputs of the graph, in order.
        output_names: Names of the tensors that it returns, in order.
        free_batch: Whether the exported model takes any batch size.
        tolerance: The relative difference that was accepted.
        checks: The comparisons with the graph; empty if they were switched off.
        graph_seconds: Median time of one call of the graph on this machine; None without checks.
        runtime_seconds: That of the exported model in its runtime.
    """

    format: str
    files: tuple[Path, ...]
    size: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    free_batch: bool
    tolerance: float
    checks: tuple[OutputCheck, ...] = ()
    graph_seconds: float | None = None
    runtime_seconds: float | None = None

    @property
    def relative(self) -> float:
        """The largest relative difference of all checks."""
        return max((check.relative for check in self.checks), default=0.0)

    @property
    def latency_ratio(self) -> float | None:
        """Time of the exported model divided by that of the graph; below 1 is faster. None without checks."""
        if self.graph_seconds is None or self.runtime_seconds is None:
            return None
        return self.runtime_seconds / self.graph_seconds

    def facts(self) -> Mapping[str, Any]:
        """Return everything as plain values, for programs."""
        checks = [
            {"shapes": each.shapes, "relative": each.relative, "same_argmax": each.same_argmax} for each in self.checks
        ]
        return {
            "format": self.format, "files": [str(file) for file in self.files], "file_bytes": self.size,
            "inputs": self.input_names, "outputs": self.output_names, "free_batch": self.free_batch,
            "tolerance": self.tolerance, "checks": checks, "graph_seconds": self.graph_seconds,
            "runtime_seconds": self.runtime_seconds, "latency_ratio": self.latency_ratio,
        }  # fmt: skip

    def __str__(self) -> str:
        """Return one line for each check, and one for the time."""
        lines = [f"{self.format}: {', '.join(map(str, self.files))}, {self.size} bytes"]
        lines += map(str, self.checks)
        if self.latency_ratio is not None:
            lines.append(f"takes {self.latency_ratio:.2f} of the graph's time")
        return "\n".join(lines)
