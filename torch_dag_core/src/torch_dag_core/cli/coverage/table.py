"""The page about a library: what was examined with what, totals, failures by reason, and a line for each model."""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_dag_core.cli.coverage.comparison import CLOSE, DOUBLE_CLOSE, REFUSED
from torch_dag_core.cli.coverage.examination import Row
from torch_dag_core.cli.coverage.kept import EQUAL
from torch_dag_core.cli.coverage.record import CoverageFile, CoverageFileError, Header

_BESIDE_COLUMNS = ("model", "converted", "channels", "blocks")
_MOST_NAMES = 12
_WORTH_TELLING = 1e-3
"""Smallest share of a model's FLOPs for which the line of a model tells what locks it."""


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


def page(surveys: Sequence[CoverageFile], beside: Figures | None = None) -> str:
    """Return the page as Markdown.

    Args:
        surveys: The shards of one survey.
        beside: Figures to show beside those of each model.

    Raises:
        CoverageFileError: the surveys were made with different releases or of different libraries.
    """
    header = _common(surveys)
    rows = sorted((row for survey in surveys for row in survey.rows.values()), key=lambda row: str(row["model"]))
    parts = [_head(header, surveys, rows), _totals(rows), _failures(rows)]
    if beside is not None:
        parts.append(_comparison(rows, beside))
    parts += [_locks(rows), _models(rows, beside)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _common(surveys: Sequence[CoverageFile]) -> Header:
    first = surveys[0]
    for other in surveys[1:]:
        changes = first.header.changes(other.header)
        if changes:
            message = f"{str(first.path)!r} and {str(other.path)!r} do not belong together: {'; '.join(changes)}"
            raise CoverageFileError(message)
    return first.header


def _head(header: Header, surveys: Sequence[CoverageFile], rows: Sequence[Row]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    known = {name: n for survey in surveys for name, n in survey.parameters.items()}
    most = max((row["parameters"] for row in rows if "parameters" in row), default=0)
    sample = f"sample of {len(rows)} of {len(known)} models, up to {most / 1e6:.1f} M parameters"
    what = f"all {len(rows)} models" if len(rows) == len(known) else sample
    dates = " and ".join(sorted({survey.header.date for survey in surveys}))
    return (
        f"# Coverage of {header.source}\n\nWritten by `torch-dag coverage` and `torch-dag coverage-table` on {dates}; "
        f"{what}.\n\n- {versions}\n- {header.machine}"
    )


# Totals ----------------------------------------------------------------------------------------------------------


def _totals(rows: Sequence[Row]) -> str:
    converted = [row for row in rows if "vertices" in row]
    counts = {
        "examined": len(rows),
        "built": sum("parameters" in row for row in rows),
        "converted": len(converted),
        "without any failure": sum(not row["failures"] for row in rows),
        "too large for memory, examined without weights": sum(not row["has_weights"] for row in rows),
        "converted with a free batch size": sum(row["free_batch"] for row in converted),
        "converted with a free image size or length": sum(row["free_size"] for row in converted),
        "with torch functions that have no op of their own": sum(bool(row["torch_calls"]) for row in converted),
        "loaded without their source, equal bit for bit": _reloaded(rows, "graph"),
        "pruned at random, masked equals removed, costs as predicted": sum(
            bool(row.get("cut")) and "cut" not in row["failures"] for row in rows
        ),
        "loaded after pruning, equal bit for bit": _reloaded(rows, "pruned"),
    }
    lines = [f"| {what} | {count} |" for what, count in counts.items()]
    return "\n".join(["## Totals", "", "| models | |", "|---|--:|", *lines, "", *_measures(rows)])


def _reloaded(rows: Iterable[Row], name: str) -> int:
    return sum(row.get("reload", {}).get(name) == EQUAL for row in rows)


def _measures(rows: Sequence[Row]) -> Iterator[str]:
    """Give a table of the differences from the source, and lines about shares, time and memory."""
    found = defaultdict(list)
    for row in rows:
        for what, value in row.get("differences", {}).items():
            found[what].append(value)
    if found:
        judged = f"equal bit for bit | within {CLOSE:g} | others within {DOUBLE_CLOSE:g} in double precision"
        yield f"| difference from the source | compared | {judged} | {REFUSED} |"
        yield "|---|--:|--:|--:|--:|--:|"
    for what, values in found.items():
        numbers = [value for value in values if not isinstance(value, str)]
        exact, close = sum(value == 0 for value in numbers), sum(value <= CLOSE for value in numbers)
        rounded = sum(_is_rounding(row.get("double", {}).get(what)) for row in rows)
        yield f"| {_label(what)} | {len(numbers)} | {exact} | {close} | {rounded} | {values.count(REFUSED)} |"
    yield ""
    for check in _checks(rows):
        shares = [row[check]["removable"] for row in rows if "removable" in row.get(check, {})]
        yield f"- FLOPs that can be removed ({check}): {_spread(shares, '{:.2%}')}"
    if not _checks(rows):
        yield "- No plugin that prunes was installed; torch-dag-pruning adds what can be removed."
    yield f"- Seconds for a model: {_spread([row['seconds'].get('total', 0) for row in rows], '{:.1f}')}"
    peaks = [row["peak_megabytes"] for row in rows if row.get("peak_megabytes")]
    yield f"- Most memory, libraries included: {_spread(peaks, '{:.0f} MB')}"


def _is_rounding(double: float | str | None) -> bool:
    return isinstance(double, float) and double <= DOUBLE_CLOSE


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "none"
    shown = map(form.format, (statistics.median(values), min(values), max(values)))
    return "median {}, least {}, most {}".format(*shown)


def _label(name: str) -> str:
    return name.replace("_", ", batch ")


def _checks(rows: Iterable[Row]) -> list[str]:
    """Return the columns of plugins that tell a removable share."""
    return sorted(
        {name for row in rows for name, value in row.items() if isinstance(value, dict) and "removable" in value}
    )


# Failures --------------------------------------------------------------------------------------------------------


def _failures(rows: Sequence[Row]) -> str:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for step, reason in row["failures"].items():
            groups[step, group_of(reason, row["model"])].append(row["model"])
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [f"- {len(names)} in `{step}`: {_cell(reason)} ({_names(names)})" for (step, reason), names in ordered] or [
        "None."
    ]
    return "\n".join(["## Failures by reason", "", *lines])


def group_of(reason: str, model: str) -> str:
    """Return a reason without what differs from model to model: quoted names, numbers and the model's own name."""
    without_names = re.sub(r"'[^']*'", "'...'", reason.replace(model, "MODEL"))
    return re.sub(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?", "N", without_names)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:_MOST_NAMES]) + more


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# Beside other figures --------------------------------------------------------------------------------------------


def _comparison(rows: Sequence[Row], beside: Figures) -> str:
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
    return "\n".join(lines)


# Models ----------------------------------------------------------------------------------------------------------


def _locks(rows: Sequence[Row]) -> str:
    """Return the reasons that lock most FLOPs, over all models."""
    reasons: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row, lock in _all_locks(rows):
        reason = str(lock["reason"]).replace(str(lock["vertex"]), "NAME")
        reasons[group_of(reason, row["model"])].append((float(str(lock["share"])), row["model"]))
    if not reasons:
        return ""
    ordered = sorted(reasons.items(), key=lambda item: -sum(share for share, _ in item[1]))[:_MOST_NAMES]
    lines = [
        f"| {_cell(reason)} | {len({name for _, name in found})} | {max(found)[0]:.2%} (`{max(found)[1]}`) |"
        for reason, found in ordered
    ]
    head = ["## What cannot be removed", "", "| reason | models | most FLOPs locked in a model |", "|---|--:|---|"]
    return "\n".join([*head, *lines])


def _all_locks(rows: Iterable[Row]) -> Iterator[tuple[Row, Mapping[str, object]]]:
    for row in rows:
        for value in row.values():
            if isinstance(value, dict):
                yield from ((row, lock) for lock in value.get("locked", ()))


def _models(rows: Sequence[Row], beside: Figures | None) -> str:
    checks = _checks(rows)
    columns: dict[str, Callable[[Row], str]] = {
        "model": lambda row: f"`{row['model']}`",
        "M parameters": lambda row: f"{row['parameters'] / 1e6:.2f}" if "parameters" in row else "",
        "G FLOPs": lambda row: f"{row['flops'] / 1e9:.2f}" if "flops" in row else "",
        "largest difference": _largest,
        "loaded": lambda row: "equal" if row.get("reload", {}).get("graph") == EQUAL else "",
        **{f"{check} removable": _removable(check) for check in checks},
        **({f"{beside.title}, {check}": _theirs(beside, check) for check in checks} if beside else {}),
        "locked most by": _most_locking,
        "failures": lambda row: ", ".join(row["failures"]) or ("" if row["has_weights"] else "structure only"),
    }
    lines = ["| " + " | ".join(_cell(show(row)) for show in columns.values()) + " |" for row in rows]
    return "\n".join(["## Models", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines])


def _largest(row: Row) -> str:
    numbers = [value for value in row.get("differences", {}).values() if not isinstance(value, str)]
    return "" if not numbers else "0" if max(numbers) == 0 else f"{max(numbers):.0e}"


def _removable(check: str) -> Callable[[Row], str]:
    return lambda row: f"{row[check]['removable']:.2%}" if "removable" in row.get(check, {}) else ""


def _theirs(beside: Figures, check: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        name = row["model"]
        if name not in beside.converted:
            return ""
        if not beside.converted[name]:
            return "not converted"
        share = beside.removable.get(check, {}).get(name)
        return "no" if share is None else f"{share:.2%}"

    return show


def _most_locking(row: Row) -> str:
    locks = [lock for _, lock in _all_locks([row])]
    most = max(locks, key=lambda lock: float(str(lock["share"])), default=None)
    if most is None or float(str(most["share"])) < _WORTH_TELLING:
        return ""
    return f"{most['share']:.2%} {most['vertex']}: {most['reason']}"
