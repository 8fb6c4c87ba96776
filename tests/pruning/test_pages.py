"""The pages about pruning: their code runs and prints what they show, links lead somewhere, and cited rules exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALGEBRA = (DOCS / "axis-algebra.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "torch_dag_pruning" / "src").rglob("*.py"))

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RULE = re.compile(r'<a id="(\w+)"></a>\*\*(\w+)\. ')
CITED = re.compile(r"(?:axis-algebra\.md``, |\()([AOFPMCR]\d+)\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)")


def with_renumbered_atoms(text: str) -> str:
    """Number atoms by first appearance: their own numbers depend on how many atoms all rules together have made."""
    numbers: dict[str, str] = {}
    return re.sub(r"\ba\d+:", lambda m: numbers.setdefault(m[0], f"a{len(numbers)}:"), text)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([\w-]+)">', text))


@pytest.mark.parametrize(
    ("page", "outputs"),
    [("axis-algebra.md", 10), ("choosing.md", 4), ("concepts.md", 1), ("learned-pruning.md", 0), ("recovery.md", 0)],
)
def test_every_block_of_code_prints_the_text_behind_it(page: str, outputs: int):
    names: dict[str, object] = {}
    printed, checked = "", 0
    for kind, block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "python":
            assert printed == "", "the block before prints something that the page does not show"
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, page, "exec"), names)
            printed = out.getvalue()
        else:
            assert with_renumbered_atoms(printed) == with_renumbered_atoms(block)
            printed, checked = "", checked + 1
    assert printed == ""
    assert checked == outputs


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md"], ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    links = [(page.parent / file if file else page, anchor) for file, anchor in LINK.findall(text)]
    assert [file for file, _ in links if not file.exists()] == []
    wrong = [anchor for file, anchor in links if anchor and anchor not in anchors(file.read_text(encoding="utf-8"))]
    assert wrong == []


def test_the_picture_is_an_image_that_needs_no_other_file():
    picture = (DOCS / "one-convolution.svg").read_text(encoding="utf-8")
    root = ET.fromstring(picture)
    assert root.tag.endswith("svg")
    assert re.findall(r'(?:href|src)="(?!#)|@import|url\((?!#)', picture) == []


def test_every_rule_has_an_anchor_of_its_own_name():
    rules = RULE.findall(ALGEBRA)
    assert [label for _, label in rules] == [anchor.upper() for anchor, _ in rules]
    assert len({anchor for anchor, _ in rules}) == len(rules) == ALGEBRA.count('<a id="')


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_source_cites_rules_that_the_page_has(path: Path):
    known = {label for _, label in RULE.findall(ALGEBRA)}
    assert set(CITED.findall(path.read_text(encoding="utf-8"))) - known == set()


def test_the_source_cites_the_page():
    assert sum("axis-algebra.md" in path.read_text(encoding="utf-8") for path in SOURCES) >= 8
