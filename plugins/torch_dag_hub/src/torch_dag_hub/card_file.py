"""The text of a model card around what is generated: its front matter, its markers, and what its author wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from torch_dag_hub.errors import HubError

BEGIN: Final = "<!-- torch-dag: what follows is measured, and replaced when the model is saved again -->"
END: Final = "<!-- torch-dag: end of what is measured -->"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.MULTILINE | re.DOTALL)


def read_card(path: Path) -> str:
    """Return the text of a card with its line ends as they are.

    Raises:
        HubError: the file is not in UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path.name} is not in UTF-8 ({error}); save it as UTF-8, or move it away"
        raise HubError(message) from error


def merged(existing: str | None, title: str, metadata: Mapping[str, Any], section: str) -> str:
    """Return the text of a card with a generated section.

    Nothing that the author of a card wrote is changed: entries are added to its front matter only under keys that it
    lacks, and the section replaces the one between the markers, or is appended to a card without markers.

    Args:
        existing: The card that is there already; None if there is none.
        title: The heading of a new card.
        metadata: Entries of the front matter.
        section: What was generated, without markers.

    Raises:
        HubError: the markers of the card are not one pair, or its front matter cannot be read.
    """
    marked = f"{BEGIN}\n\n{section.strip()}\n\n{END}"
    if existing is None or not existing.strip():
        return f"---\n{_yaml(metadata)}---\n\n# {title}\n\n{marked}\n"
    return _with_metadata(_with_section(existing, marked), metadata)


def _with_section(card: str, marked: str) -> str:
    begins, ends = card.count(BEGIN), card.count(END)
    if not begins and not ends:
        return f"{card.rstrip()}\n\n{marked}\n"
    before, _, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if (begins, ends) != (1, 1) or not end:
        message = (
            f"README.md has {begins} times {BEGIN!r} and {ends} times {END!r}, not one pair in this order; "
            "what lies between cannot be replaced, so restore the pair or remove both lines"
        )
        raise HubError(message)
    return f"{before}{marked}{after}"


def _with_metadata(card: str, metadata: Mapping[str, Any]) -> str:
    found = _FRONT_MATTER.match(card)
    if found is None:
        return f"---\n{_yaml(metadata)}---\n\n{card}"
    missing = {key: value for key, value in metadata.items() if key not in _read(found[1])}
    return f"{card[: found.start(2)]}{_yaml(missing) if missing else ''}{card[found.start(2) :]}"


def _read(text: str) -> Mapping[str, Any]:
    try:
        entries = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        message = f"the front matter of README.md is no valid YAML: {' '.join(str(error).split())}"
        raise HubError(message) from error
    if not isinstance(entries, dict):
        message = f"the front matter of README.md is a {type(entries).__name__}, not a list of entries 'key: value'"
        raise HubError(message)
    return entries


def _yaml(entries: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(entries), sort_keys=False, allow_unicode=True)
    return text
