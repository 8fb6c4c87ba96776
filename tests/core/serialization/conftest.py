"""Graphs to save: a small vocabulary, random graphs over it, and one tiny file with a bit of everything."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_dag_core.graph.builtin_ops import Constant, FreeParameter, State
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import Assumption, InputSpec, Parameter, TensorSpec
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Record, Size, Slot
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.codecs import ClassCodec, OpCodec
from torch_dag_core.plugins.registry import OpSpec, Registry

WIDTH = 4
LAYERS = (nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.LSTM, nn.Conv2d)
DECLARED = {spec.target: spec.codec for spec in specs()}


class Plus(Op):
    def forward(self, *operands: Tensor) -> Tensor:
        return sum(operands[1:], operands[0])


class Scaled(Op):
    factor: Any
    bias: Size | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + (self.bias.resolve([x]) if isinstance(self.bias, Size) else self.bias)


class Masked(Op):
    """Has a buffer that state_dict does not show."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.register_buffer("mask", torch.ones(width), persistent=False)

    def config(self) -> dict[str, Any]:
        return {"width": len(self.mask)}

    def extra_repr(self) -> str:
        return str(len(self.mask))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


@pytest.fixture(scope="session")
def vocabulary():
    return {"Plus": Plus, "Scaled": Scaled, "Masked": Masked}


@pytest.fixture(scope="session")
def registry():
    return make_registry()


def make_registry() -> Registry:
    registry = Registry()
    for layer in LAYERS:
        key = f"core.{layer.__name__.lower()}"
        registry.add(OpSpec(key=key, target=layer, codec=DECLARED[layer]), owner="torch-dag-core")
    codecs = dict.fromkeys((Plus, Scaled, Masked), OpCodec) | dict.fromkeys(
        (Constant, FreeParameter, State), ClassCodec
    )
    for op, codec in codecs.items():
        spec = OpSpec(key=f"test.{op.__name__.lower()}", target=op, codec=codec(op))
        registry.add(spec, owner="torch-dag-core")
    return registry


def one_tensor(name: str = "x", width: int | None = WIDTH) -> InputSpec:
    return InputSpec((Parameter(name, Slot(0)),), (TensorSpec(torch.float32, (None, width)),))


class RandomGraph:
    """Draws a graph over tensors of shape (N, WIDTH)."""

    def __init__(self, seed: int, depth: int = 2) -> None:
        self.random = random.Random(seed)
        self.depth = depth
        torch.manual_seed(seed)

    def build(self) -> DagModule:
        dag = DagModule()
        dag.input_spec = one_tensor()
        dag.add_input("x")
        for index in range(self.random.randint(1, 8)):
            module, operands = self.module(dag)
            place = self.random.choice(["", "stage.", f"stage.block{index}.", f"body{index}.deep.er."])
            dag.add_vertex(dag.unique_name(f"{place}layer{index}"), module, operands)
        inner = [vertex for vertex in dag.vertices if not isinstance(vertex, type(dag.input_vertices[0]))]
        if self.depth == 2:
            chosen = self.random.sample(dag.vertices, self.random.randint(1, min(3, len(dag.vertices))))
            dag.set_outputs(self.structure(len(chosen)), chosen)
        else:
            dag.set_output(inner[-1])
        dag.train(self.random.random() < 0.5)
        return self.disturb(dag)

    def module(self, dag: DagModule) -> tuple[nn.Module, list[Any]]:
        operand = [self.random.choice(dag.vertices)]
        kinds = "linear norm relu dropout plus scaled masked constant free shared nested"
        kind = self.random.choice(kinds.split())
        if kind == "plus":
            return Plus(), self.random.choices(dag.vertices, k=self.random.randint(1, 4))
        if kind in ("constant", "free"):
            value = torch.randn(3, WIDTH)
            holder = Constant if kind == "constant" else FreeParameter
            held = dag.add_vertex(dag.unique_name("held"), holder(value.shape, value.dtype, value=value))
            return Plus(), [*operand, held]
        usable = [v.module for v in dag.inner_vertices if isinstance(v.module, (nn.Linear, DagModule, Masked))]
        if kind == "shared" and usable:
            return self.random.choice(usable), operand
        if kind == "nested" and self.depth:
            return RandomGraph(self.random.getrandbits(32), self.depth - 1).build(), operand
        simple = {
            "norm": lambda: nn.BatchNorm1d(WIDTH), "relu": nn.ReLU, "masked": lambda: Masked(WIDTH),
            "dropout": lambda: nn.Dropout(0.5), "scaled": lambda: Scaled(self.random.choice([2, 0.5, -1e30, 1 / 3])),
        }  # fmt: skip
        return simple.get(kind, lambda: nn.Linear(WIDTH, WIDTH, bias=self.random.random() < 0.5))(), operand

    def structure(self, count: int) -> Any:
        slots = [Slot(index) for index in range(count)]
        return self.random.choice([
            tuple(slots), slots, {"out": slots, 3: None},
            Record("dataclass", "Output", (("first", slots[0]), ("all", slots))),
            Record("namedtuple", "Pair", (("first", tuple(slots)), ("size", 2.5))),
        ])  # fmt: skip

    def disturb(self, dag: DagModule) -> DagModule:
        """Freeze some parameters, flip some modes, tie some weights, change statistics."""
        linears = [m for m in dag.modules() if isinstance(m, nn.Linear)]
        if len(linears) > 1 and self.random.random() < 0.5:
            first, second = self.random.sample(linears, 2)
            second.weight = first.weight
        for parameter in dag.parameters():
            parameter.requires_grad_(self.random.random() < 0.7)
        for vertex in dag.inner_vertices:
            if self.random.random() < 0.2:
                vertex.module.train(not dag.training)
        for buffer in dag.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
        return dag


@pytest.fixture(scope="session")
def random_dag():
    return lambda seed: RandomGraph(seed).build()


@pytest.fixture(scope="session")
def tiny():
    return make_tiny


def make_tiny() -> DagModule:
    """Build a graph of a few hundred bytes of weights that uses every part of the format."""
    torch.manual_seed(0)
    inner = DagModule()
    inner.input_spec = one_tensor("y", 2)
    inner.set_output(inner.add_vertex("act", nn.ReLU(), [inner.add_input("y")]))
    dag = DagModule()
    x = dag.add_input("x")
    linear = nn.Linear(2, 2)
    first = dag.add_vertex("stem.fc", linear, [x])
    norm = dag.add_vertex("stem.norm", nn.BatchNorm1d(2), [first])
    block = dag.add_vertex("block", inner, [norm])
    again = dag.add_vertex("again", linear, [block])
    tied = nn.Linear(2, 2, bias=False)
    tied.weight = linear.weight
    late = dag.add_vertex("tied", tied, [again])
    mask = dag.add_vertex("mask", Masked(2), [late])
    scale = dag.add_vertex("scale", Scaled(0.5, Size(((0, 1),))), [mask])
    token = dag.add_vertex(
        "token", FreeParameter((2,), torch.float32, value=nn.Parameter(torch.ones(2), requires_grad=False))
    )
    total = dag.add_vertex("total", Plus(), [scale, token])
    dag.set_outputs({"logits": Slot(0), "all": [Slot(0), Slot(1)]}, [total, first])
    dag.set_outputs(Record("namedtuple", "Out", (("a", Slot(0)),)), [total], training_only=True)
    condition = ("eq", ("mod", ("input", 0, 1), 2), 0)
    dag.input_spec = InputSpec(
        (Parameter("x", Slot(0)), Parameter("scale", 1.5, default=True)),
        (TensorSpec(torch.float32, (None, 2)),), (Assumption(condition),), ("traced at width 2",),
    )  # fmt: skip
    dag.provenance = {"source": "test", "versions": ("1.0", 2)}
    norm.module.eval()
    return dag


class RawFile:
    """A safetensors file taken apart by hand: its header, the graph document in it, its data."""

    def __init__(self, content: bytes) -> None:
        (length,) = struct.unpack("<Q", content[:8])
        self.header = json.loads(content[8 : 8 + length])
        self.document = json.loads(self.header["__metadata__"]["torch_dag"])
        self.data = content[8 + length :]

    def content(self) -> bytes:
        return with_text(self, json.dumps(self.document))


def with_text(raw: RawFile, text: str) -> bytes:
    header = json.dumps({**raw.header, "__metadata__": {"torch_dag": text}}).encode()
    return struct.pack("<Q", len(header)) + header + raw.data


@pytest.fixture(scope="session")
def raw_file():
    return RawFile


@pytest.fixture(scope="session")
def raw_content():
    return with_text
