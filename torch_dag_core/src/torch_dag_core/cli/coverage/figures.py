"""Figures of another tool beside the rows of a survey."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_dag_core.cli.coverage.examination import Row
from torch_dag_core.cli.coverage.record import CoverageFileError

_BESIDE_COLUMNS = ("model", "converted", "channels", "blocks")


@dataclass(frozen=True)
class Figures:
    """What another tool reached, by model.

    Attributes:
        title: What the tool is called, from the name of the file.
        converted: Whether it converted a model.
        removable: The share of FLOPs that it can remove, by check and model.
    """

    title: str
    converted: Mapping[str, bool]
    removable: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, path: Path) -> Figures:
        """Read a CSV with the columns model, converted (0 or 1), channels and blocks (shares, or empty).

        Raises:
            CoverageFileError: a column is missing, or a value is none of these.
        """
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        try:
            converted = {row["model"]: bool(int(row["converted"])) for row in rows}
            shares = {
                check: {row["model"]: float(row[check]) for row in rows if row[check]} for check in _BESIDE_COLUMNS[2:]
            }
        except (KeyError, ValueError) as error:
            message = f"{str(path)!r} must have the columns {', '.join(_BESIDE_COLUMNS)} with numbers: {error}"
            raise CoverageFileError(message) from error
        return cls(path.stem.replace("_", " "), converted, shares)


def comparison(rows: Sequence[Row], beside: Figures) -> str:
    """Return a section that compares rows with the figures of another tool, and names what is worse here."""
    ours = {row["model"]: row for row in rows if row["model"] in beside.converted}
    here, there = (sum("vertices" in row for row in ours.values()), sum(beside.converted[name] for name in ours))
    lines = [f"## Beside {beside.title}", ""]
    lines += [f"{len(ours)} of these models are among the {len(beside.converted)} of {beside.title}.", ""]
    lines += [f"| | here | {beside.title} |", "|---|--:|--:|", f"| converted | {here} | {there} |"]
    for check, theirs in beside.removable.items():
        both = [name for name in ours if name in theirs and "removable" in ours[name].get(check, {})]
        prunable = sum("removable" in row.get(check, {}) for row in ours.values())
        lines.append(f"| {check}: prunable | {prunable} | {sum(name in theirs for name in ours)} |")
        if both:
            medians = [statistics.median(shares) for shares in (
                [ours[name][check]["removable"] for name in both], [theirs[name] for name in both])]  # fmt: skip
            values = " | ".join(f"{median:.2%}" for median in medians)
            lines.append(f"| {check}: median share of FLOPs that can be removed, where both tell | {values} |")
            more = sum(ours[name][check]["removable"] >= theirs[name] for name in both)
            lines.append(f"| {check}: models of which at least as much can be removed | {more} of {len(both)} | |")
    lines += _worse(ours, beside)
    return "\n".join(lines)


def _worse(ours: Mapping[str, Row], beside: Figures) -> Iterator[str]:
    """Give a paragraph for each check about the models of which less can be removed than by the other tool."""
    for check, theirs in beside.removable.items():
        shares = {name: row[check]["removable"] for name, row in ours.items() if "removable" in row.get(check, {})}
        less = {name: shares[name] for name in sorted(shares.keys() & theirs.keys()) if shares[name] < theirs[name]}
        if less:
            said = ", ".join(f"`{name}` ({share:.2%}, not {theirs[name]:.2%})" for name, share in less.items())
            yield f"\nLess can be removed here ({check}): {said}."
