"""The page about a library: what was examined with what, totals, failures by reason, and a line for each model."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from torch_dag_core.cli.coverage.comparison import CLOSE, DOUBLE_CLOSE, REFUSED
from torch_dag_core.cli.coverage.examination import Row
from torch_dag_core.cli.coverage.figures import Figures, comparison
from torch_dag_core.cli.coverage.kept import EQUAL
from torch_dag_core.cli.coverage.record import CoverageFile, CoverageFileError, Header

_MOST_NAMES = 12
_WORTH_TELLING = 1e-3
"""Smallest share of a model's FLOPs for which the line of a model tells what locks it."""


def page(surveys: Sequence[CoverageFile], beside: Figures | None = None) -> str:
    """Return the page as Markdown.

    Args:
        surveys: The shards of one survey, or surveys of the same models with and without weights.
        beside: Figures to show beside those of each model.

    Raises:
        CoverageFileError: the surveys were made with different releases or of different libraries.
    """
    header = _common(surveys)
    rows = _merged(surveys)
    parts = [_head(header, surveys, rows), _totals(rows), _failures(rows)]
    if beside is not None:
        parts.append(comparison(rows, beside))
    parts += [_locks(rows), _models(rows, beside)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _merged(surveys: Sequence[CoverageFile]) -> list[Row]:
    """Return one row for each model, sorted by name: the last one with weights, or the last one if none has."""
    rows: dict[str, Row] = {}
    for row in (row for survey in surveys for row in survey.rows.values()):
        if row["has_weights"] or not rows.get(row["model"], row)["has_weights"]:
            rows[row["model"]] = row
    return [rows[name] for name in sorted(rows)]


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
    dates = Counter(row.get("date", header.date) for row in rows)
    examined = ", ".join(f"{count} on {date}" for date, count in sorted(dates.items()))
    return (
        f"# Coverage of {header.source}\n\nWritten by `torch-dag coverage` and `torch-dag coverage-table`; {what}, "
        f"examined: {examined}.\n\n- {versions}\n- {header.machine}{_structures_explained(rows)}"
    )


def _structures_explained(rows: Sequence[Row]) -> str:
    """Return a paragraph about rows without weights; empty if there are none."""
    count = sum(not row["has_weights"] for row in rows)
    if not count:
        return ""
    return (
        f"\n\n{count} models were examined without weights (`structure` in the table below): each is converted, the "
        "structure of the graph is saved and loaded where its source cannot be imported, and half of all channels are "
        "removed at random; shapes, FLOPs and parameters of the result are compared with the predicted ones. What "
        "these models compute is not compared."
    )


# Totals ----------------------------------------------------------------------------------------------------------


def _totals(rows: Sequence[Row]) -> str:
    converted = [row for row in rows if "vertices" in row]
    counts = {
        "examined": len(rows),
        "built": sum("parameters" in row for row in rows),
        "converted": len(converted),
        "converted for evaluation alone": sum("evaluation_only" in row for row in converted),
        "without any failure": sum(not row["failures"] for row in rows),
        "examined with weights": sum(row["has_weights"] for row in rows),
        "examined without weights, structure only": sum(not row["has_weights"] for row in rows),
        "converted with a free batch size": sum(row["free_batch"] for row in converted),
        "converted with a free image size or length": sum(row["free_size"] for row in converted),
        "with torch functions that have no op of their own": sum(bool(row["torch_calls"]) for row in converted),
        "loaded without their source, equal bit for bit": _reloaded(rows, "graph"),
        "loaded without their source, equal structure": _reloaded(rows, "structure of graph"),
        "pruned at random, masked equals removed, costs as predicted": sum(
            row["has_weights"] for row in rows if _is_cut(row)
        ),
        "pruned at random, shapes and costs as predicted": sum(not row["has_weights"] for row in rows if _is_cut(row)),
        "loaded after pruning, equal bit for bit": _reloaded(rows, "pruned"),
        "loaded after pruning, equal structure": _reloaded(rows, "structure of pruned"),
    }
    lines = [f"| {what} | {count} |" for what, count in counts.items()]
    return "\n".join(["## Totals", "", "| models | |", "|---|--:|", *lines, "", *_measures(rows)])


def _is_cut(row: Row) -> bool:
    return bool(row.get("cut")) and "cut" not in row["failures"]


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
        "examined": lambda row: "with weights" if row["has_weights"] else "structure",
        "M parameters": lambda row: f"{row['parameters'] / 1e6:.2f}" if "parameters" in row else "",
        "G FLOPs": lambda row: f"{row['flops'] / 1e9:.2f}" if "flops" in row else "",
        "largest difference": _largest,
        "loaded": lambda row: "equal" if _reloaded([row], "graph") or _reloaded([row], "structure of graph") else "",
        **{f"{check} removable": _removable(check) for check in checks},
        **({f"{beside.title}, {check}": _theirs(beside, check) for check in checks} if beside else {}),
        "locked most by": _most_locking,
        "failures": lambda row: ", ".join(row["failures"]),
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
