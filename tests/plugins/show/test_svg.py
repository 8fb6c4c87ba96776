"""The vector graphic, read back by an XML parser, is the graph."""

from __future__ import annotations

import ast
import re
import time
from collections import Counter
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torch_dag_core as td
from torch_dag_show import to_svg
from torch_dag_show.arrangement import arrange

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text):
    return ET.fromstring(text)


def boxes(root, kind="vertex"):
    return [each.get(f"data-{kind}") for each in root.iter(f"{SVG}g") if each.get(f"data-{kind}") is not None]


def edges(root):
    return [(path.get("data-from"), path.get("data-to")) for path in root.iter(f"{SVG}path") if path.get("data-from")]


def edges_of(dag):
    return {(p.name, v.name) for v in (*dag.inner_vertices, *dag.output_vertices) for p in v.predecessors}


def test_vertices_and_edges_are_those_of_the_graph(staged):
    root = parsed(staged.to_svg())
    assert Counter(boxes(root)) == Counter(vertex.name for vertex in (*staged.vertices, *staged.output_vertices))
    assert Counter(edges(root)) == Counter(edges_of(staged))
    assert boxes(root, "module") == []


def test_boxes_say_op_name_and_shape(staged):
    root = parsed(to_svg(staged))
    (box,) = (each for each in root.iter(f"{SVG}g") if each.get("data-vertex") == "stages.0.blocks.0.up")
    assert [text.text for text in box.iter(f"{SVG}text")] == ["Linear", "up", "1x16"]
    assert box.find(f"{SVG}title").text.split("\n")[:2] == [
        "stages.0.blocks.0.up",
        "Linear(in_features=8, out_features=16, bias=True)",
    ]


def test_folded_modules_say_how_much_is_in_them(staged):
    root = parsed(to_svg(staged, depth=2))
    assert boxes(root, "module") == ["stages.0", "stages.1"]
    assert boxes(root) == ["x", "head.0", "output"]
    assert set(edges(root)) == {
        ("x", "stages.0"), ("stages.0", "stages.1"), ("stages.1", "head.0"), ("head.0", "output"),
    }  # fmt: skip
    (box,) = (each for each in root.iter(f"{SVG}g") if each.get("data-module") == "stages.1")
    assert [text.text for text in box.iter(f"{SVG}text")] == ["1", "9 vertices", "1x8"]


def test_earlier_sizes_are_shown_in_another_colour():
    small = td.build_from_unstructured_module(nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 8)), torch.randn(2, 8))
    large = td.build_from_unstructured_module(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 8)), torch.randn(2, 8))
    root = parsed(small.to_svg(large))
    changed = [each for each in root.iter(f"{SVG}g") if "changed" in each.get("class", "").split()]
    assert [each.get("data-vertex") for each in changed] == ["0"]
    assert [text.text for text in changed[0].iter(f"{SVG}text")][-1] == "1x2 (was 1x6)"


def test_equal_graphs_give_equal_texts(staged):
    assert to_svg(staged) == to_svg(staged.clone())


def test_a_graph_without_vertices_is_a_picture():
    assert boxes(parsed(to_svg(td.DagModule()))) == ["output"]


def read_back(text):
    """Return a name of which characters that XML cannot hold were written as escapes."""
    return re.sub(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4})", lambda found: ast.literal_eval(f"'{found[0]}'"), text)


def test_hostile_names_are_names_and_nothing_else(hostile):
    root = parsed(hostile.to_svg())
    assert [read_back(name) for name in boxes(root)] == [v.name for v in (*hostile.vertices, *hostile.output_vertices)]
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "style", "defs", "marker", "path", "rect", "g", "text",
    }  # fmt: skip
    assert hostile.to_svg().encode()


def test_long_names_make_no_wide_boxes(hostile):
    root = parsed(hostile.to_svg())
    assert max(len(vertex.name) for vertex in hostile.vertices) > 120
    assert max(float(rect.get("width")) for rect in root.iter(f"{SVG}rect")) < 700


@pytest.mark.parametrize("depth", [None, 1, 2])
def test_five_thousand_vertices_take_bounded_work(long_graph, depth):
    dag = long_graph(5_000)
    start = time.perf_counter()
    root = parsed(dag.to_svg(depth=depth))
    assert time.perf_counter() - start < 60
    assert len(dag.inner_vertices) == 5_000
    counts = [int(text.text.split()[0]) for text in root.iter(f"{SVG}text") if (text.text or "").endswith(" vertices")]
    assert sum(counts) + len(boxes(root)) == 5_002
    if depth is None:
        assert Counter(edges(root)) == Counter(edges_of(dag))


def deep(levels):
    dag = td.DagModule()
    value = dag.add_vertex(".".join(["m"] * levels), nn.ReLU(), [dag.add_input("x")])
    dag.set_output(value)
    return dag


def test_modules_may_be_nested_deeply():
    assert len(boxes(parsed(to_svg(deep(400))))) == 3


PATHS = st.lists(st.lists(st.sampled_from("ab"), max_size=3).map(tuple), max_size=14)


def overlap(a, b):
    return (
        a.left < b.left + b.width
        and b.left < a.left + a.width
        and a.top < b.top + b.height
        and b.top < a.top + a.height
    )


@given(paths=PATHS, data=st.data())
def test_boxes_lie_apart_inside_their_modules_and_edges_join_them(paths, data):
    pairs = [(a, b) for b in range(len(paths)) for a in range(b)]
    joined = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    sizes = [(40.0 + 7 * index, 20.0 + index) for index in range(len(paths))]
    layout = arrange(sizes, paths, joined, [0] if paths and not paths[0] else [], 6.0)
    for index, box in enumerate(layout.boxes):
        assert (box.width, box.height) == sizes[index]
        assert all(not overlap(box, other) for other in layout.boxes[:index])
        for path, module in layout.modules.items():
            inside = paths[index][: len(path)] == path
            assert inside == overlap(box, module)
            assert not inside or (
                module.left < box.left
                and box.left + box.width < module.left + module.width
                and module.top < box.top
                and box.top + box.height < module.top + module.height
            )
    for (source, target), points in zip(joined, layout.edges, strict=True):
        start, end = layout.boxes[source], layout.boxes[target]
        assert points[0] == pytest.approx((start.left + start.width / 2, start.top + start.height))
        assert points[-1] == pytest.approx((end.left + end.width / 2, end.top))
        assert all(0 <= x <= layout.width and 0 <= y <= layout.height for x, y in points)
