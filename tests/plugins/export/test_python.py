"""Graphs as Python files: every op of the core, both modes, without torch-dag."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_core.graph import builtin_ops
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size
from torch_dag_core.ops import arithmetic, layout
from torch_dag_core.ops.vocabulary import specs
from torch_dag_export.python.known_forms import form_of, known_forms

_PATH = Path(__file__).parents[2] / "core" / "ops" / "test_vocabulary.py"
_SPEC = importlib.util.spec_from_file_location("core_vocabulary", _PATH)
vocabulary = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(vocabulary)


def loaded(path, name="exported_file"):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def written(dag, folder, **options):
    """Return the model of a file that a graph was exported to."""
    tde.export(dag, folder / "net.py", **options)
    return loaded(folder / "net.py").load()


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in tensors(item)]


def assert_equal(model, dag, inputs, *, training=False):
    results = []
    for each in (model, dag):
        torch.manual_seed(3)
        results.append(tensors(each.train(training)(*inputs)))
    dag.eval()
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_every_op_of_the_core_can_be_written():
    forms = known_forms()
    assert [spec.key for spec in specs() if not _can_be_written(spec.target, forms)] == ["core.training_switch"]


def _can_be_written(target, forms):
    return form_of(target.__new__(target), forms) is not None


@pytest.mark.parametrize("key", [key for key in vocabulary.EXAMPLES if key != "core.get_item"])  # picks below are some
def test_an_op_computes_the_same_in_both_modes(key, tmp_path):
    module, operands = _example(vocabulary.EXAMPLES[key])
    dag = td.DagModule()
    inputs = [dag.add_input(f"x{index}") for index in range(len(operands))]
    result = dag.add_vertex("some.0.name", module, inputs)
    dag.set_outputs(_picked(dag, result, module(*operands)))
    if not inputs:
        dag.add_input("unused")
        operands = (torch.ones(1),)
    model = written(dag.eval(), tmp_path, example_inputs=operands, check=False)
    assert_equal(model, dag, operands)
    assert_equal(model, dag, operands, training=True)


def _example(example):
    module, *operands = example
    return module, tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], tuple) else tuple(operands)


def _picked(dag, vertex, value):
    """Return a vertex for each tensor of a value, nested as it is."""
    if isinstance(value, torch.Tensor):
        return vertex
    return tuple(
        _picked(dag, dag.add_vertex(f"{vertex.name}_{index}", builtin_ops.GetItem(index), [vertex]), item)
        for index, item in enumerate(value)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_file_computes_what_the_graph_computes(named_graph, tmp_path, dtype):
    _, dag, inputs = named_graph
    dag.to(dtype)
    inputs = [each.to(dtype) if each.is_floating_point() else each for each in inputs]
    try:
        report = tde.export(dag, tmp_path / "net.py", example_inputs=tuple(inputs))
        assert report.relative < 1e-5
        assert len(report.checks) == 2
        model = loaded(tmp_path / "net.py").load()
        assert_equal(model, dag, inputs)
        assert_equal(model, dag, inputs, training=True)
        assert_equal(model, dag, inputs)
    finally:
        dag.float()


def test_the_file_is_readable(small, tmp_path):
    model = written(small, tmp_path)
    text = (tmp_path / "net.py").read_text()
    assert type(model).__name__ == "ConvNet"
    assert "self.stem[0] = nn.Conv2d(3, 8, (3, 3)" in text.replace('self.stem.add_module("0", ', "self.stem[0] = ")
    assert "        block = self.block(stem_2)\n" in text
    assert "        mul = scale * block\n" in text
    assert "torch_dag" not in text
    assert model.state_dict().keys() == small.state_dict().keys()


def test_the_file_runs_in_a_process_without_torch_dag(small, tmp_path):
    tde.export(small, tmp_path / "net.py")
    x = torch.randn(4, 3, 8, 8)
    torch.save(x, tmp_path / "x.pt")
    code = """
import sys
sys.modules.update({"torch_dag_core": None, "torch_dag_export": None})
import torch, net
x = torch.load("x.pt")
model = net.load()
torch.save(model(x), "y.pt")
torch.export.export(model, (x,))
torch.compile(model, fullgraph=True, backend="eager")(x)
print([name for name in sys.modules if name.startswith("torch_dag") and sys.modules[name]])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert torch.equal(torch.load(tmp_path / "y.pt"), small(x))


def test_wrong_inputs_are_refused(small, tmp_path):
    model = written(small, tmp_path)
    with pytest.raises(ValueError, match=r"x has shape \(1, 4, 8, 8\), the model takes \(None, 3, "):
        model(torch.randn(1, 4, 8, 8))


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Containers(nn.Module):
    def forward(self, pair, options, flag=True):
        total = pair[0] + options["b"][1] * pair[1].shape[0]
        return Pair(total, total[:, 1:, None]) if flag else total


def test_containers_of_inputs_and_outputs(tmp_path):
    x = torch.randn(2, 4)
    inputs = ([x, x + 1], {"b": (x, x * 2)}, True)
    dag = td.build_from_unstructured_module(Containers().eval(), inputs)
    model = written(dag, tmp_path, example_inputs=inputs)
    result = model(*inputs)
    assert (type(result).__name__, result._fields) == ("Pair", ("first", "second"))
    assert_equal(model, dag, inputs)
    with pytest.raises(ValueError, match="flag is False, but this model was made with True"):
        model(*inputs[:2], False)
    with pytest.raises(ValueError, match="the length of pair is 3"):
        model([x, x, x], *inputs[1:])


class Base(OrderedDict):
    """A stand-in for the base class that model libraries give their results."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                super().__setitem__(field.name, getattr(self, field.name))

    def to_tuple(self):
        return tuple(self.values())


@dataclasses.dataclass
class ModelOutput(Base):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return ModelOutput(logits=self.linear(x))


def test_results_that_are_dictionaries_and_dataclasses(tmp_path):
    x = torch.randn(2, 4)
    dag = td.build_from_unstructured_module(Classifier().eval(), x)
    result = written(dag, tmp_path)(x)
    assert type(result).__name__ == "ModelOutput"
    assert (result.loss, list(result)) == (None, ["logits"])
    assert result["logits"] is result.logits is result[0]
    assert torch.equal(result.logits, dag(x).logits)
    assert torch.equal(pickle.loads(pickle.dumps(result)).logits, result.logits)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight
        self.act = nn.ReLU()

    def forward(self, ids):
        return self.head(self.act(self.act(self.embed(ids))))


def test_shared_modules_and_tied_weights_stay_so(tmp_path):
    ids = torch.randint(9, (2, 3))
    dag = td.build_from_unstructured_module(Tied().eval(), ids)
    model = written(dag, tmp_path)
    assert model.head.weight is model.embed.weight
    assert_equal(model, dag, (ids,))


class Counts(nn.Module):
    """A model that keeps state, and computes something else in training."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        if self.training:
            self.mean.mul_(0.5).add_(0.5 * x.mean(0))
            return self.linear(x - x.mean(0)), self.mean.clone()
        return self.linear(x - self.mean), self.mean.clone()


def test_state_and_modes_are_kept(tmp_path):
    x = torch.randn(4, 3)
    dag = td.build_from_unstructured_module(Counts().eval(), x)
    model = written(dag, tmp_path)
    assert "_training(" in (tmp_path / "net.py").read_text()
    for training in (True, True, False):
        assert_equal(model, dag, (x,), training=training)
    torch.testing.assert_close(model.state_dict()["mean"], dag.state_dict()["mean"])


def test_odd_names_and_sizes_are_written(tmp_path):
    dag = td.DagModule()
    x = dag.add_input("x")
    first = dag.add_vertex("class", layout.Reshape((Size(((0, 0), (0, 1)), 1, 2, 0), -1)), [x])
    second = dag.add_vertex("a-b.1.sum", arithmetic.Mul(float("inf")), [first])
    third = dag.add_vertex("0", nn.Linear(8, 2), [first])
    dag.set_outputs({"a b": second, 3: third})
    inputs = (torch.rand(2, 2, 4) + 1,)
    assert_equal(written(dag, tmp_path, example_inputs=inputs), dag, inputs)
    text = (tmp_path / "net.py").read_text()
    assert "class_1 = x0.reshape((x0.shape[0] * x0.shape[1] // 2, -1))\n" in text
    assert 'a_b_1_sum = class_1 * float("inf")\n' in text
    assert "v0 = self[0](class_1)\n" in text
    assert 'return {"a b": a_b_1_sum, 3: v0}\n' in text


class Strange(Op):
    def forward(self, x):
        return x


def test_ops_without_a_form_are_refused_by_name(small, tmp_path):
    small.add_vertex("strange", Strange(), [small.get_vertex_by_name("block")])
    small.set_outputs((small.outputs[0], small.get_vertex_by_name("strange")))
    with pytest.raises(tde.ExportError, match=r"how to write Strange \('strange'\) as Python; export to pt2, or"):
        tde.export(small, tmp_path / "net.py")
    assert list(tmp_path.iterdir()) == []


FORM = """
from torch_dag_export.python.core_forms import LAYOUT
from torch_dag_export import written_as
from torch_dag_core.graph.op import Op

class Strange(Op):
    power: int
    def forward(self, x):
        return x ** self.power

def raised(x, power):
    return x ** power

@hookimpl(optionalhook=True)
def torch_dag_python_forms():
    return (written_as(Strange, "raised({0}, {power})", raised),)

@hookimpl(optionalhook=True)
def torch_dag_export_formats():
    from torch_dag_export.formats.python_module import PYTHON
    return (PYTHON,)
"""


def test_hook_python_forms(site, tmp_path):
    site.install("odd", FORM)
    assert list(tde.export_formats()) == ["python"]
    Strange = sys.modules["sample_module_odd"].Strange
    dag = td.DagModule()
    dag.set_outputs(dag.add_vertex("cube", Strange(3), [dag.add_input("x")]))
    model = written(dag, tmp_path, example_inputs=torch.randn(2, 3))
    assert_equal(model, dag, (torch.randn(2, 3),))
    text = (tmp_path / "net.py").read_text()
    assert "def raised(x, power):\n" in text
    assert "cube = raised(x0, 3)\n" in text


def test_a_graph_for_evaluation_alone_refuses_training(tmp_path):
    dag = td.build_from_unstructured_module(nn.Linear(2, 2), torch.randn(2, 2), modes="eval")
    model = written(dag.eval(), tmp_path)
    with pytest.raises(ValueError, match="the model computes in evaluation alone"):
        model.train()(torch.randn(1, 2))
