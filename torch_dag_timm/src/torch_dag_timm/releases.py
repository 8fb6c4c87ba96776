"""Which timm is installed: some classes compute something else since a release."""

from __future__ import annotations

import re
from importlib.metadata import version


def at_least(*release: int) -> bool:
    """Tell whether timm is of this release or a later one; that needs no import of timm."""
    return tuple(map(int, re.findall(r"\d+", version("timm")))) >= release
