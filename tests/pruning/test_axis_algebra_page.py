"""The page about the axis algebra: its code runs and prints what it shows, and has every rule that the source cites."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "axis-algebra.md"
TEXT = PAGE.read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "torch_dag_pruning" / "src").rglob("*.py"))

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANCHOR = re.compile(r'<a id="(\w+)"></a>\*\*(\w+)\. ')
CITED = re.compile(r"(?:axis-algebra\.md``, |\()([AOFPMCR]\d+)\b")


def renumbered(text: str) -> str:
    """Number atoms by first appearance, as their absolute numbers follow from how many atoms all rules make."""
    numbers: dict[str, str] = {}
    return re.sub(r"\ba\d+:", lambda m: numbers.setdefault(m[0], f"a{len(numbers)}:"), text)


def test_every_block_of_code_prints_the_text_behind_it():
    names: dict[str, object] = {}
    printed, checked = "", 0
    for kind, block in BLOCK.findall(TEXT):
        if kind == "python":
            assert printed == "", "the block before prints something that the page does not show"
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, str(PAGE), "exec"), names)
            printed = out.getvalue()
        else:
            assert renumbered(printed) == renumbered(block)
            printed, checked = "", checked + 1
    assert printed == ""
    assert checked >= 8


def test_every_rule_has_an_anchor_of_its_own_name():
    anchors = ANCHOR.findall(TEXT)
    assert [label for _, label in anchors] == [anchor.upper() for anchor, _ in anchors]
    assert len({anchor for anchor, _ in anchors}) == len(anchors) == TEXT.count('<a id="')


def test_links_within_the_page_lead_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    known = headings | {anchor for anchor, _ in ANCHOR.findall(TEXT)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) - known == set()


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if CITED.search(path.read_text(encoding="utf-8"))], ids=lambda p: p.stem
)
def test_the_source_cites_rules_that_the_page_has(path: Path):
    known = {label for _, label in ANCHOR.findall(TEXT)}
    assert set(CITED.findall(path.read_text(encoding="utf-8"))) - known == set()


def test_the_source_cites_the_page():
    assert sum(len(CITED.findall(path.read_text(encoding="utf-8"))) for path in SOURCES) >= 10
