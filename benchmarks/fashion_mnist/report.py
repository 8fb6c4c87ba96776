"""Rows as Markdown tables between two markers of a page, and as a plot."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import replace_generated

from .cases import SEEDS, Case, cases

SCRIPT = "benchmarks.fashion_mnist"
NAMES = {"resnet": "ResNet", "vit": "ViT"}


def report(rows: Sequence[dict[str, Any]], page: Path, plot: Path) -> None:
    """Write the tables between the markers of ``page``, and the plot.

    Raises:
        ValueError: the page lacks a marker.
    """
    replace_generated(page, SCRIPT, markdown(rows))
    draw([row for row in rows if row["question"] == "no training"], plot)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table for each network and question, and under what circumstances the rows were computed."""
    parts = [circumstances(rows)]
    for network in unique(rows, "network"):
        for question in unique(rows, "question"):
            chosen = [row for row in rows if (row["network"], row["question"]) == (network, question)]
            if chosen:
                parts += [f"**{NAMES[network]}, {question}** ({bases(chosen)})", table(chosen)]
    return "\n\n".join(parts)


def circumstances(rows: Sequence[dict[str, Any]]) -> str:
    names = ("torch", "torch-dag-pruning", "torch-pruning")
    versions = ", ".join(f"{name} {' / '.join(unique(rows, name))}" for name in names)
    dates = sorted(unique(rows, "date"))
    cores = " / ".join(str(count) for count in unique(rows, "cores"))
    return (
        f"{len(rows)} rows, {dates[0]} to {dates[-1]}; {versions}; a machine of {cores} cores, one thread a process. "
        f"{missing(rows)}"
    )


def missing(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many rows of each question and network have not been computed yet, and of which seeds."""
    done = {Case.read(row) for row in rows}
    left: dict[str, list[Case]] = defaultdict(list)
    for case in cases(SEEDS):
        if case not in done:
            left[f"{case.question}, {NAMES[case.network]}"].append(case)
    if not left:
        return "No row is missing."
    parts = [f"{name}: {len(found)} (seeds {_seeds(found)})" for name, found in left.items()]
    return f"Not computed yet are {sum(map(len, left.values()))} rows; {'; '.join(parts)}."


def _seeds(found: Iterable[Case]) -> str:
    return ", ".join(str(seed) for seed in sorted({case.seed for case in found}))


def bases(rows: Sequence[dict[str, Any]]) -> str:
    found = dict(sorted((row["seed"], row["base"]) for row in rows))
    listed = ", ".join(f"{base:.2f} % (seed {seed})" for seed, base in found.items())
    return f"before pruning: {listed}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table with a line for each way and a column for each share of the FLOPs."""
    shares = sorted(unique(rows, "share"), reverse=True)
    lines = [
        "| way | " + " | ".join(f"{share:.0%} of the FLOPs" for share in shares) + " |",
        "|---" * (len(shares) + 1) + "|",
    ]
    for way in unique(rows, "way"):
        cells = [cell([row for row in rows if (row["way"], row["share"]) == (way, share)]) for share in shares]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rows: Sequence[dict[str, Any]]) -> str:
    """Return the mean accuracy over the seeds, their deviation and number, and the most FLOPs that were reached."""
    if not rows:
        return "not run"
    values = [row["accuracy"] for row in rows]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} (n={len(values)}; {max(row['flops'] for row in rows):.1%})"


def unique(rows: Iterable[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against FLOPs, a panel for each network and a line for each way."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fashion_mnist"
    from matplotlib import pyplot as plt

    networks = unique(rows, "network")
    figure, panels = plt.subplots(1, len(networks), figsize=(5.5 * len(networks), 4), squeeze=False)
    for panel, network in zip(panels[0], networks, strict=True):
        of_network = [row for row in rows if row["network"] == network]
        for way in unique(of_network, "way"):
            of_way = [row for row in of_network if row["way"] == way]
            panel.plot(*curve(of_way), marker="o", label=way, linewidth=2.5 if way == "ours" else 1)
        panel.set(
            title=f"{NAMES[network]}, no training after the cut", xlabel="share of the FLOPs", ylabel="accuracy, %"
        )
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def curve(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    shares = sorted(unique(rows, "share"))
    groups = [[row for row in rows if row["share"] == share] for share in shares]
    return (
        [statistics.mean(row["flops"] for row in group) for group in groups],
        [statistics.mean(row["accuracy"] for row in group) for group in groups],
    )
