"""The installed release of timm; some classes compute something else from a certain release on."""

from __future__ import annotations

import re
from importlib.metadata import version


def at_least(*release: int) -> bool:
    """Tell whether the installed timm is this release or a later one, without importing it."""
    return tuple(map(int, re.findall(r"\d+", version("timm")))) >= release
