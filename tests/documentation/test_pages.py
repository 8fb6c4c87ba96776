"""The pages: links lead somewhere, pictures are complete, and cited rules exist."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALGEBRA = (DOCS / "axis-algebra.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "torch_dag_pruning" / "src").rglob("*.py"))

RULE = re.compile(r'<a id="(\w+)"></a>\*\*(\w+)\. ')
CITED = re.compile(r"(?:axis-algebra\.md``, |\()([AOFPMCR]\d+)\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)")


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([\w-]+)">', text))


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
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
