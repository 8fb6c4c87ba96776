"""Generated parts of documentation pages, between two comments that mark where they begin and end."""

from __future__ import annotations

from pathlib import Path


def markers(script: str) -> tuple[str, str]:
    """Return the comments around what a script generates."""
    return f"<!-- rows of {script}: begin -->", f"<!-- rows of {script}: end -->"


def replace_generated(page: Path, script: str, text: str) -> None:
    """Put a text between the markers of a script, in place of what is there.

    Raises:
        ValueError: the page lacks a marker, or has one twice.
    """
    begin, end = markers(script)
    old = page.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1:
        message = f"{page} must have each of the lines {begin!r} and {end!r} once"
        raise ValueError(message)
    before, after = old.split(begin)[0], old.split(end)[1]
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
