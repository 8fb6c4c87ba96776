"""Names of the files in a folder or a repository; imports no torch, so that the command's help is fast."""

from __future__ import annotations

from typing import Final

MODEL: Final = "model.safetensors"
"""The graph; `torch_dag_core.load` looks for this name in a folder."""
CONFIG: Final = "config.json"
CARD: Final = "README.md"
WEIGHTS: Final = (MODEL, f"{MODEL}.index.json", "model-*-of-*.safetensors")
"""Patterns of the files that a graph may be in."""
