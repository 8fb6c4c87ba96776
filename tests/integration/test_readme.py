"""The README's Python runs as it stands, in one session, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm")
pytest.importorskip("torch_dag_pruning")

_README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_every_python_block_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = _BLOCK.findall(_README.read_text(encoding="utf-8"))
    loading, *session = blocks
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in session:
        exec(compile(block, str(_README), "exec"), names)
    names["pruned"].save("resnet18_half.safetensors")  # type: ignore[attr-defined]
    names["images"] = torch.randn(1, 3, 224, 224)
    exec(compile(loading, str(_README), "exec"), names)

    assert len(session) >= 6
    assert names["output"].shape == (1, 1000)  # type: ignore[attr-defined]
