"""Ten thousand damaged files: each is refused with a SerializationError or loads as a graph that holds together."""

from __future__ import annotations

import builtins
import copy
import json
import os
import random
import struct
import time

import pytest
import torch
from torch import nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.program import compile_forward
from torch_dag_core.serialization import load, save

FILES = 10_000
STRANGE = [
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**18, 10**40, 0.5, -0.0, 1e308, "", "x", "stem.fc",
    "forward", "__class__", "a b", "\ud800", "\x00", ".", "a." * 2000, "n" * 5000,
    [], [[]], {}, [0] * 50, {"float": "nan"}, {"float": "1"},
    {"slot": 0}, {"slot": -1}, {"slot": 10**9}, {"size": [[[0, 1]], 1, 0, 0]}, {"size": [[[9, 0]], 1, 1, 0]},
    {"dtype": "float32"}, {"dtype": "object"}, {"slice": [1]}, {"slice": [1, 2, 3, 4]}, {"complex": [1, 2]},
    {"complex": "ab"}, {"list": 3}, {"dict": [[[], 1]]}, {"dict": [[{"list": []}, 1]]}, {"ellipsis": 1}, {"record": []},
    {"record": ["namedtuple", "A", [["_x", {"slot": 0}]]]},
    {"record": ["dataclass", "A; canary()", [["x", {"slot": 0}]]]},
    {"record": ["dataclass", "A", [["x: canary()", {"slot": 0}]]]},
    {"record": ["dataclass", "A", [["class", 1], ["b", 1]]]},
    {"pickle": "gASVBQAAAAA="}, {"a": 1, "b": 2}, "canary()", "__import__('os').system('true')", ["eq", "canary()", 1],
    "test.plus", "core.linear", "core.nothing", "os.system", "user.Thing",
]  # fmt: skip


def places(value, found=None):
    """List (container, key) of every value in a JSON tree."""
    found = [] if found is None else found
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        found.append((value, key))
        if isinstance(item, (dict, list)):
            places(item, found)
    return found


class Damage:
    """One way after another to damage a file, drawn from a seed."""

    def __init__(self, original, raw_file, raw_content, seed):
        self.original, self.raw_file, self.raw_content = original, raw_file, raw_content
        self.template = raw_file(original)
        self.random = random.Random(seed)
        (self.header_length,) = struct.unpack("<Q", original[:8])
        self.kinds = [
            (self.flip_bits, 2), (self.truncate, 1), (self.insert_bytes, 1), (self.edit_document, 10),
            (self.edit_header, 3), (self.swap_values, 3), (self.break_text, 2), (self.rewire, 2),
            (self.resize, 2), (self.rename, 1),
        ]  # fmt: skip

    def draw(self):
        kinds, weights = zip(*self.kinds, strict=True)
        return self.random.choices(kinds, weights)[0]()

    def raw(self):
        return self.raw_file(self.original)

    def flip_bits(self):
        content = bytearray(self.original)
        limit = self.random.choice([8, self.header_length + 8, len(content)])
        for _ in range(self.random.choice([1, 1, 2, 8])):
            content[self.random.randrange(limit)] ^= 1 << self.random.randrange(8)
        return bytes(content)

    def truncate(self):
        return self.original[: self.random.randrange(len(self.original))]

    def insert_bytes(self):
        position = self.random.randrange(len(self.original))
        return self.original[:position] + self.random.randbytes(self.random.randint(1, 9)) + self.original[position:]

    def edit_document(self):
        raw = self.raw()
        for _ in range(self.random.choice([1, 1, 1, 3])):
            container, key = self.random.choice(places(raw.document))
            self.edit(container, key)
        return raw.content()

    def edit_header(self):
        raw = self.raw()
        kept = {name: entry for name, entry in raw.header.items() if name != "__metadata__"}
        container, key = self.random.choice(places(kept))
        self.edit(container, key)
        raw.header = {**kept, "__metadata__": raw.header["__metadata__"]}
        return raw.content()

    def edit(self, container, key):
        action = self.random.choice(["replace", "replace", "delete", "double", "nudge", "wrap"])
        value = container[key]
        if action == "delete":
            del container[key]
        elif action == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(value))
        elif action == "double":
            container[self.random.choice(["extra", f"{key}x", ""])] = copy.deepcopy(value)
        elif action == "nudge" and type(value) is int:
            container[key] = value + self.random.choice([-1, 1, 2, 100])
        elif action == "wrap":
            container[key] = [value] if self.random.random() < 0.5 else {"list": [value]}
        else:
            container[key] = copy.deepcopy(self.random.choice(STRANGE))

    def swap_values(self):
        raw = self.raw()
        document = raw.document
        tree = self.random.choice([document, raw.header, document["tensors"], document["graph"]["vertices"]])
        (first, a), (second, b) = self.random.choices(places(tree), k=2)
        first[a], second[b] = copy.deepcopy(second[b]), copy.deepcopy(first[a])
        return raw.content()

    def break_text(self):
        text = json.dumps(self.template.document)
        position = self.random.randrange(len(text))
        pieces = ["", "{", "]", '"', "NaN", "1e999", "[" * 3000, '{"a":' * 3000, ",", "\\u0000", "9" * 5000]
        piece = self.random.choice(pieces)
        return self.raw_content(self.template, text[:position] + piece + text[position + self.random.randint(0, 3) :])

    def rewire(self):
        raw = self.raw()
        vertices = raw.document["graph"]["vertices"]
        vertex = self.random.choice(vertices)
        count = self.random.choice([0, 1, 2, 6000])
        vertex["operands"] = [self.random.randrange(len(vertices) + 2) for _ in range(count)]
        vertex["module"] = self.random.randrange(len(raw.document["modules"]) + 2)
        return raw.content()

    def resize(self):
        raw = self.raw()
        configs = [module["config"] for module in raw.document["modules"] if module.get("config")]
        config = self.random.choice(configs)
        sizes = [0, -5, 3, 10**9, 10**12, 10**18, 2**64, 1e18, [10**9] * 3]
        config[self.random.choice(list(config))] = self.random.choice(sizes)
        return raw.content()

    def rename(self):
        raw = self.raw()
        vertex = self.random.choice(raw.document["graph"]["vertices"])
        names = ["stem", "stem.fc", "stem.fc.weight", "x", "again", "training", "a..b", "", "é", "_modules"]
        vertex["name"] = self.random.choice(names)
        return raw.content()


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory, tiny, registry):
    path = tmp_path_factory.mktemp("hostile") / "tiny.safetensors"
    save(tiny(), path, registry=registry)
    return path


def outcome(path, registry):
    """Load; anything but a SerializationError or a graph that verifies and compiles fails the test."""
    try:
        dag = load(path, registry=registry)
    except SerializationError:
        return None
    dag.verify()
    compile_forward(dag, training=False)
    assert not any(tensor.is_meta for tensor in (*dag.parameters(), *dag.buffers()))
    return dag


@pytest.mark.filterwarnings("error")
def test_damaged_files(tiny_file, registry, raw_file, raw_content, monkeypatch, tmp_path):
    fired = []
    monkeypatch.setattr(builtins, "canary", lambda *_: fired.append("canary"), raising=False)
    monkeypatch.setattr(os, "system", lambda *_: fired.append("system"))
    damage = Damage(tiny_file.read_bytes(), raw_file, raw_content, seed=0)
    state, files = torch.get_rng_state(), set(tmp_path.iterdir())
    accepted, slowest = 0, 0.0
    path = tmp_path / "damaged.safetensors"
    for number in range(FILES):
        path.write_bytes(damage.draw())
        start = time.perf_counter()
        try:
            accepted += outcome(path, registry) is not None
        except BaseException as error:
            path.rename(tmp_path / f"unexpected{number}.safetensors")
            error.add_note(f"file {number} of seed 0: {tmp_path}")
            raise
        slowest = max(slowest, time.perf_counter() - start)
    assert fired == []
    assert torch.equal(state, torch.get_rng_state())
    assert files <= set(tmp_path.iterdir())
    assert slowest < 5.0
    # Most damage is noticed; what is not changes a value for another valid one.
    assert 0 < accepted < FILES / 4, accepted


def test_every_truncation_is_refused(tiny_file, registry, tmp_path):
    content = tiny_file.read_bytes()
    path = tmp_path / "short.safetensors"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert outcome(path, registry) is None


def test_what_runs_is_only_the_graph(tiny_file, registry, raw_file, tmp_path, monkeypatch):
    """Names that reach generated code are refused, whatever they say."""
    fired = []
    monkeypatch.setattr(builtins, "canary", lambda *_: fired.append(1), raising=False)
    slot, quoted = {"slot": 0}, "a'+canary()+'"
    attacks = [
        lambda graph, spec: spec["parameters"][0].update(name="x=canary()"),
        lambda graph, spec: spec["parameters"][0].update(structure={"dict": [[quoted, slot]]}),
        lambda graph, spec: spec["assumptions"].append(["eq", "canary()", 1]),
        lambda graph, spec: spec["assumptions"].append(["input", 0, "0] or canary()"]),
        lambda graph, spec: spec["tensors"][0].update(shape=[None, "2 or canary()"]),
        lambda graph, spec: graph["outputs"][0].update(
            structure={"record": ["dataclass", "A", [["x=canary()", slot]]]}
        ),
        lambda graph, spec: graph["outputs"][0].update(structure={"dict": [["canary()", slot], ["b", {"slot": 1}]]}),
        lambda graph, spec: graph["vertices"][2].update(name="canary()"),
    ]
    ran = []
    for number, attack in enumerate(attacks):
        raw = raw_file(tiny_file.read_bytes())
        attack(raw.document["graph"], raw.document["graph"]["input_spec"])
        (tmp_path / "attack").write_bytes(raw.content())
        dag = outcome(tmp_path / "attack", registry)
        if dag is not None:
            ran.append(number)
            dag.eval()({quoted: torch.ones(1, 2)} if number == 1 else torch.ones(1, 2))
    assert fired == []
    # A string as a dictionary key, and a vertex name, are only text.
    assert ran == [1, 6, 7]


def test_loaded_file_does_not_share_the_accepted_registry(tiny_file, registry):
    count = len(list(registry.ops()))
    load(tiny_file, registry=registry, atomic_modules=())
    assert len(list(registry.ops())) == count
    assert registry.for_class(nn.Linear).key == "core.linear"
