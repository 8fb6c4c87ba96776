"""Names as text that every format can hold, in boxes of a bounded width."""

from __future__ import annotations

import re
import unicodedata

_NO_TEXT = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, or that have no shape."""
LONGEST = 40


def plain(text: str) -> str:
    """Return a text in which control characters and lone surrogates are written as escapes of Python."""
    return _NO_TEXT.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a text without line breaks, shortened in the middle to 40 characters."""
    line = " ".join(plain(text).split())
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[: half - 1]}…{line[-half:]}"


def columns(text: str) -> int:
    """Return how many letters wide a text is; letters of Chinese, Japanese and Korean count as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
