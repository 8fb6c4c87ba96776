"""Every block of code in the README and in docs/ runs, page by page from top to bottom, and prints what the page shows.

- ``python`` blocks of a page run in one session, in an empty folder. A ``text`` block behind one is what it prints.
- ``shell`` blocks run in the same folder.
- ``toml``, ``yaml`` and fences without a language are not run.
- A block with ``title="not run: REASON"`` is only compiled. The reason is one of `REASONS`, or names the
  test that runs it.
- A block that is the head of a function and nothing else is only compiled: it shows a signature.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REASONS = {
    "installs packages",
    "needs files of your own",
    "needs a device",
    "part of a package",
    "another library",
}
LANGUAGES = {"", "python", "shell", "text", "toml", "yaml"}
OUTPUTS = {"axis-algebra.md": 10, "choosing.md": 4, "concepts.md": 1}
"""How many blocks of printed text these pages have at least."""


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    code: str

    @property
    def is_signature(self) -> bool:
        return re.fullmatch(r"def \w+\([^\n]*\) -> [^\n]*[^:]\n", self.code) is not None

    @property
    def reason(self) -> str | None:
        return self.title.removeprefix("not run: ") if self.title.startswith("not run: ") else None


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_renumbered_atoms(text: str) -> str:
    """Number atoms by first appearance: their own numbers depend on how many atoms all rules together have made."""
    numbers: dict[str, str] = {}
    return re.sub(r"\ba\d+:", lambda m: numbers.setdefault(m[0], f"a{len(numbers)}:"), text)


def run_python(page: Path, code: str, names: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, name(page), "exec"), names)
    return out.getvalue()


def run_shell(code: str) -> None:
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["bash", "-euc", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_runs_and_prints_the_text_behind_it(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    printed, checked = "", 0
    for block in blocks(page):
        if block.reason or block.is_signature:
            continue
        if block.language == "text":
            assert with_renumbered_atoms(printed) == with_renumbered_atoms(block.code)
            printed, checked = "", checked + 1
        else:
            assert printed == "", "the block before prints something that the page does not show"
        if block.language == "python":
            printed = run_python(page, block.code, names)
        if block.language == "shell":
            run_shell(block.code)
    assert printed == ""
    assert checked >= OUTPUTS.get(page.name, 0)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_marked(page: Path) -> None:
    found = blocks(page)
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(found), "a fence has another form than the ones above"
    assert {block.language for block in found} <= LANGUAGES
    for block in found:
        if block.reason is not None and block.reason.startswith("run by "):
            assert (ROOT / block.reason.removeprefix("run by ")).is_file()
        elif block.reason is not None:
            assert block.reason in REASONS
        if block.language == "python":
            compile(block.code.rstrip() + (":\n    ..." if block.is_signature else ""), name(page), "exec")


def test_few_blocks_are_not_run() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language in {"python", "shell"}]
    assert sum(block.reason is not None for block in found) < len(found) / 4
