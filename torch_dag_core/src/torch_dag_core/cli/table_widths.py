"""Widths of tables: no word is broken, and outside of terminals no line either."""

from __future__ import annotations

import os
import re
from itertools import chain

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

_FRAME = 3
"""A line and a space on both sides of a column."""
_WORD = re.compile(r"^\s*\S+|\S+")
"""A word; the first one with the indentation before it."""


def fitting_console(table: Table) -> Console:
    """Return a console that is wide enough for every word of a table, and fix the widths of the table's columns.

    In a terminal, or where the environment variable ``COLUMNS`` says how wide that is, the widest columns are narrowed
    until the table fits, but never below their longest word.
    """
    console = Console(soft_wrap=True)
    least = [max(map(_longest_word, _texts(column)), default=0) for column in table.columns]
    widths = [max(map(cell_len, _texts(column)), default=0) for column in table.columns]
    frame = _FRAME * len(widths) + 1
    if console.is_terminal or "COLUMNS" in os.environ:
        widths = _narrowed(widths, least, console.width - frame)
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    return Console(soft_wrap=True, width=max(console.width, sum(widths) + frame))


def _narrowed(widths: list[int], least: list[int], available: int) -> list[int]:
    """Take from the widest column that can be narrowed, until the widths fit or none can."""
    widths = list(widths)
    while sum(widths) > available:
        wide = [(width, place) for place, width in enumerate(widths) if width > least[place]]
        if not wide:
            break
        widths[max(wide)[1]] -= 1
    return widths


def _texts(column: Column) -> list[str]:
    return [str(cell) for cell in chain([column.header], column.cells)]


def _longest_word(text: str) -> int:
    return max(map(cell_len, _WORD.findall(text)), default=0)
