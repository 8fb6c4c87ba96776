"""Distributions with plugins, as the core's tests lay them out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[2] / "core" / "plugins" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("core_plugins_conftest", _PATH)
_core = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_core)
site = _core.site
