"""The interactive page in a real browser; run with ``nox -s browser``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_dag_core as td
from torch_dag_show import to_html

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.browser

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--window-size=1400,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options)
    yield driver
    driver.quit()


class Page:
    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())

    def run(self, script):
        return self.browser.execute_script(script)

    def items(self):
        return self.run(
            "return state.boxes.filter((box) => box.parent && !(box.children && box.expanded)).map((box) => box.name)"
        )

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()

    def text(self, selector):
        return self.browser.find_element("css selector", selector).text


@pytest.fixture
def opened(browser, tmp_path):
    def open_page(dag, before=None, depth=None):
        path = tmp_path / "graph.html"
        path.write_text(to_html(dag, before, depth=depth), encoding="utf-8")
        return Page(browser, path)

    yield open_page
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def block():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


@pytest.fixture
def dag():
    return td.build_from_unstructured_module(nn.Sequential(block(), block(), nn.Linear(8, 4)), torch.randn(2, 8))


def test_groups_close_and_open(opened, dag):
    page = opened(dag)
    page.click("#collapse")
    assert sorted(page.items()) == ["0", "1", "2", "input", "output"]
    page.click("#expand")
    assert sorted(page.items()) == sorted([vertex.name for vertex in dag.vertices] + ["output"])


def test_a_page_begins_with_modules_closed_at_a_depth(opened, dag):
    assert sorted(opened(dag, depth=1).items()) == ["0", "1", "2", "input", "output"]
    assert "0.1" in opened(dag, depth=2).items()


def test_a_found_vertex_is_shown_inside_its_group(opened, dag):
    page = opened(dag)
    page.click("#collapse")
    page.browser.find_element("css selector", "#search").send_keys("1.2\n")
    assert page.text("#details h2") == "1.2"
    assert "Linear" in page.text("#details")
    assert "1.2" in page.items()


def test_an_orbit_names_all_its_places(opened, dag):
    page = opened(dag)
    page.click('[data-overlay="0"]')
    assert page.text(".overlay ul").split("\n") == ["0.0.weight:0", "0.0.bias:0", "0.2.weight:1"]
    assert page.run("return document.querySelectorAll('.item rect[style]').length") == 2


def test_no_two_boxes_overlap_and_each_lies_in_its_group(opened, dag):
    page = opened(dag)
    page.click("#expand")
    outside = page.run("""
        return state.boxes.filter((box) => box.parent && box.parent.parent && (box.left < box.parent.left
            || box.left + box.w > box.parent.left + box.parent.w || box.top < box.parent.top
            || box.top + box.h > box.parent.top + box.parent.h)).map((box) => box.name)""")
    assert outside == []
    overlapping = page.run("""
        const found = [];
        for (const a of state.boxes) for (const b of state.boxes)
            if (a !== b && a.parent === b.parent && a.left < b.left + b.w && b.left < a.left + a.w
                && a.top < b.top + b.h && b.top < a.top + a.h) found.push([a.name, b.name]);
        return found""")
    assert overlapping == []


def test_earlier_sizes_are_shown(opened):
    small = td.build_from_unstructured_module(nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 8)), torch.randn(2, 8))
    large = td.build_from_unstructured_module(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 8)), torch.randn(2, 8))
    page = opened(small, large)
    assert "1x2 (was 1x6)" in page.text("#picture")


def chain(length):
    """A graph of many blocks, each with a branch that skips it, built directly."""
    graph = td.DagModule()
    value = graph.add_input("x")
    for index in range(length // 4):
        first = graph.add_vertex(f"stage{index // 50}.block{index}.act", nn.ReLU(), [value])
        second = graph.add_vertex(f"stage{index // 50}.block{index}.norm", nn.Identity(), [first])
        third = graph.add_vertex(f"stage{index // 50}.block{index}.gate", nn.Sigmoid(), [second])
        value = graph.add_vertex(f"stage{index // 50}.block{index}.out", nn.Bilinear(1, 1, 1), [value, third])
    graph.set_output(value)
    return graph


@pytest.mark.parametrize("length", [5_000, 20_000])
def test_many_vertices_expand_and_answer(opened, length):
    page = opened(chain(length))
    page.click("#expand")
    assert len(page.items()) == length + 2
    page.browser.find_element("css selector", "#search").send_keys("block7.gate\n")
    assert page.text("#details h2") == "stage0.block7.gate"


def test_a_flat_graph_of_many_vertices_is_laid_out(opened):
    layers = nn.Sequential(*[nn.ReLU() for _ in range(2_000)])
    page = opened(td.build_from_unstructured_module(layers, torch.randn(2, 8)))
    page.click("#expand")
    assert len(page.items()) == 2_002
