"""The Graphviz file, read back by a parser of its language, is the graph."""

from __future__ import annotations

import ast
import html
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field

import pytest

from torch_dag_show import to_dot

TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|->|\w+|[][{}=,;])', re.DOTALL)


@dataclass
class Parsed:
    """A graph, or a cluster in one."""

    attributes: dict = field(default_factory=dict)
    nodes: dict = field(default_factory=dict)
    edges: list = field(default_factory=list)
    clusters: dict = field(default_factory=dict)


class Parser:
    """Reads the statements of Graphviz's language that have no ports and no HTML, and nothing else."""

    def __init__(self, text):
        self.tokens, position = [], 0
        while position < len(text.rstrip()):
            token = TOKEN.match(text, position)
            assert token, f"no token: {text[position : position + 40]!r}"
            self.tokens.append(token[1])
            position = token.end()
        self.tokens.reverse()

    def take(self, *expected):
        token = self.tokens.pop()
        assert not expected or token in expected, (token, expected)
        return token

    def ahead(self):
        return self.tokens[-1] if self.tokens else ""

    def whole(self):
        self.take("digraph")
        graph = self.body()
        assert self.tokens == []
        return graph

    def body(self):
        graph = Parsed()
        self.take("{")
        while self.ahead() != "}":
            self.statement(graph)
        self.take("}")
        return graph

    def statement(self, graph):
        name = self.take()
        if name == "subgraph":
            cluster = self.take()
            assert cluster not in graph.clusters
            graph.clusters[cluster] = self.body()
        elif self.ahead() == "=":
            self.take("=")
            graph.attributes[name] = self.take()
        elif self.ahead() == "->":
            self.take("->")
            graph.edges.append((name, self.take()))
        else:
            assert name not in graph.nodes
            graph.nodes[name] = self.attribute_list()

    def attribute_list(self):
        found = {}
        self.take("[")
        while True:
            key = self.take()
            self.take("=")
            found[key] = self.take()
            if self.take(",", "]") == "]":
                return found


def graphs(text):
    """Return the graph of a file and all clusters in it."""
    found, waiting = [], [Parser(text).whole()]
    while waiting:
        found.append(waiting.pop())
        waiting += found[-1].clusters.values()
    return found


def vertices(text):
    """Return the names of all vertices by their identifiers, as the file's tooltips tell them."""
    nodes = [each for graph in graphs(text) for each in graph.nodes.items() if each[0] not in {"node", "graph"}]
    assert len(dict(nodes)) == len(nodes)
    return {identifier: unquoted(attributes["tooltip"]) for identifier, attributes in nodes}


def unquoted(text):
    """Return what Graphviz shows of a quoted string."""
    assert text[0] == text[-1] == '"'
    plain = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text[1:-1])
    return html.unescape(plain)


def edges(text):
    names = vertices(text)
    return [(names[source], names[target]) for graph in graphs(text) for source, target in graph.edges]


def read_back(text):
    """Return a name of which characters that pictures cannot hold were written as escapes."""
    return re.sub(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4})", lambda found: ast.literal_eval(f"'{found[0]}'"), text)


def test_vertices_and_edges_are_those_of_the_graph(staged):
    text = staged.to_dot()
    assert sorted(vertices(text).values()) == sorted(v.name for v in (*staged.vertices, *staged.output_vertices))
    expected = {(p.name, v.name) for v in (*staged.inner_vertices, *staged.output_vertices) for p in v.predecessors}
    assert Counter(edges(text)) == Counter(expected)


def test_each_module_is_one_cluster(staged):
    labels = [unquoted(graph.attributes["label"]) for graph in graphs(to_dot(staged)) if graph.attributes]
    paths = {vertex.name.rpartition(".")[0] for vertex in staged.inner_vertices}
    modules = {path.rsplit(".", cut)[0] for path in paths for cut in range(path.count(".") + 1)}
    assert sorted(labels) == sorted(modules)


def test_folded_modules_say_how_much_is_in_them(staged):
    text = to_dot(staged, depth=2)
    assert sorted(vertices(text).values()) == ["head.0", "output", "stages.0", "stages.1", "x"]
    assert text.count("\\n9 vertices\\n") == 2


def test_hostile_names_are_names_and_nothing_else(hostile):
    expected = sorted(vertex.name for vertex in (*hostile.vertices, *hostile.output_vertices))
    assert sorted(map(read_back, vertices(to_dot(hostile)).values())) == expected
    assert len(edges(to_dot(hostile))) == len(hostile)


def test_equal_graphs_give_equal_texts(staged):
    assert to_dot(staged) == to_dot(staged.clone())


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_hostile_names(hostile):
    drawn = subprocess.run(["dot", "-Tsvg"], input=to_dot(hostile), capture_output=True, text=True, check=True)
    assert drawn.stderr == ""
    assert drawn.stdout.count('<g id="node') == len(hostile) + 1
