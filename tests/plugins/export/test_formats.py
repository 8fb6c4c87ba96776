"""Every format computes what the graph computes, and says so; what fails leaves nothing behind."""

from __future__ import annotations

import importlib.util
import math
import sys

import pytest
import torch
from torch import nn

import torch_dag_core as td
import torch_dag_export as tde
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.torch_call import TorchCall


def needs(name):
    for package in tde.export_formats()[name].packages:
        pytest.importorskip(package)


EXECUTORCH = pytest.param("executorch", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"))
"""Which reads its own resources in a way that Python is to lose."""


LITERT = pytest.param("litert", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"))
"""As do the libraries that translate for it."""


@pytest.mark.parametrize("name", ["pt2", "onnx", "openvino", EXECUTORCH, LITERT])
def test_the_exported_model_computes_what_the_graph_computes(named_graph, tmp_path, name):
    needs(name)
    _, dag, _ = named_graph
    path = tmp_path / f"model{tde.export_formats()[name].suffix}"
    dag.train()
    try:
        report = tde.export(dag, path)
        assert dag.training
    finally:
        dag.eval()
    assert report.format == name
    takes_any = tde.export_formats()[name].free_batch
    assert report.free_batch == takes_any
    assert [check.shapes[0][0] for check in report.checks] == ([2, 1] if takes_any else [2])
    assert report.relative < 1e-5
    assert all(check.same_argmax == 1 for check in report.checks)
    assert report.files[0] == path
    assert report.size == sum(file.stat().st_size for file in report.files)
    assert report.latency_ratio > 0
    assert sorted(tmp_path.iterdir()) == sorted(report.files)


def test_a_program_takes_other_batch_sizes_and_names_as_the_model_does(small, tmp_path):
    tde.export(small, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    x = torch.randn(7, 3, 8, 8)
    assert torch.equal(program(x), small(x))


def test_inputs_and_outputs_of_onnx_are_named_after_the_model(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Net(nn.Module):
        def forward(self, image, scale):
            return {"sum": image + scale, "parts": [image * 2, scale * 2]}

    dag = td.build_from_unstructured_module(Net().eval(), (torch.randn(2, 3), torch.randn(2, 3)))
    report = tde.export(dag, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert report.input_names == tuple(each.name for each in session.get_inputs()) == ("image", "scale")
    assert report.output_names == tuple(each.name for each in session.get_outputs()) == ("sum", "parts_0", "parts_1")
    assert all(isinstance(each.shape[0], str) for each in session.get_inputs())
    given = {"image": torch.ones(5, 3).numpy(), "scale": torch.zeros(5, 3).numpy()}
    assert [tuple(each.shape) for each in session.run(None, given)] == [(5, 3)] * 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inputs_and_outputs_of_litert_are_named_after_the_model_and_keep_its_batch_size(tmp_path):
    needs("litert")
    interpreting = pytest.importorskip("ai_edge_litert.interpreter")

    class Net(nn.Module):
        def forward(self, image, ids):
            return {"sum": image + ids, "parts": [image * 2, ids * 2]}

    given = torch.randn(3, 4), torch.arange(12).reshape(3, 4)
    dag = td.build_from_unstructured_module(Net().eval(), given)
    report = tde.export(dag, tmp_path / "net.tflite", example_inputs=given)
    assert not report.free_batch
    assert [check.shapes for check in report.checks] == [((3, 4), (3, 4))]
    run = interpreting.Interpreter(str(tmp_path / "net.tflite")).get_signature_runner()
    assert {name: tuple(each["shape"]) for name, each in run.get_input_details().items()} == {
        "image": (3, 4), "ids": (3, 4),
    }  # fmt: skip
    found = run(image=given[0].numpy(), ids=given[1].int().numpy())
    assert set(found) == set(report.output_names) == {"sum", "parts_0", "parts_1"}
    assert torch.equal(torch.from_numpy(found["parts_1"]).long(), given[1] * 2)


def test_what_litert_cannot_express_is_refused(tmp_path):
    needs("litert")
    dag = td.DagModule()
    dag.set_outputs(dag.add_vertex("bessel", TorchCall("special.bessel_j0", (Slot(0),)), [dag.add_input("x")]))
    with pytest.raises(tde.ExportError, match=r"LiteRT cannot take the program: .*bessel_j0"):
        tde.export(dag, tmp_path / "net.tflite", example_inputs=torch.ones(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pt2", "onnx", "openvino", EXECUTORCH, LITERT])
def test_inputs_given_in_another_order_than_the_models_are_told_apart(tmp_path, name):
    needs(name)

    class Subtracts(nn.Module):
        def forward(self, x, y):
            return x - 2 * y

    given = {"y": torch.randn(2, 4), "x": torch.randn(2, 4)}
    dag = td.build_from_unstructured_module(Subtracts().eval(), given)
    report = tde.export(dag, tmp_path / "net", format=name, example_inputs=given)
    assert report.relative < 1e-6


@pytest.mark.parametrize("name", ["pt2", "onnx", "openvino", EXECUTORCH, LITERT])
def test_a_constant_that_fills_a_tensor_is_a_number_to_every_format(tmp_path, name):
    needs(name)

    class Strides(nn.Module):
        def __init__(self):
            super().__init__()
            self.strides = [torch.tensor(8.0), torch.tensor(0.1)]

        def forward(self, x):
            return x * torch.cat([x.new_full((len(x), 1), stride) for stride in self.strides], 1)

    dag = td.build_from_unstructured_module(Strides().eval(), torch.randn(3, 2))
    report = tde.export(dag, tmp_path / "net", format=name)
    assert report.relative < 1e-6


def test_constants_of_functions_that_are_named_like_keywords_are_exported(tmp_path):
    class Masked(nn.Module):
        def forward(self, x):
            places = torch.arange(4)
            return x.masked_fill((places > 0) & (places < 3), 0.0)

    dag = td.build_from_unstructured_module(Masked().eval(), torch.randn(2, 4))
    assert tde.export(dag, tmp_path / "net.pt2").relative == 0


def test_a_fixed_batch_is_checked_once(small, tmp_path):
    report = tde.export(small, tmp_path / "net.pt2", free_batch=False, example_inputs=torch.randn(1, 3, 8, 8))
    assert not report.free_batch
    assert [check.shapes for check in report.checks] == [((1, 3, 8, 8),)]
    with pytest.raises(Exception, match=r"size\(\)\[0\] == 1|shape"):
        torch.export.load(tmp_path / "net.pt2").module()(torch.randn(2, 3, 8, 8))


def test_double_precision_is_compared_more_closely(tmp_path):
    dag = td.build_from_unstructured_module(nn.Linear(4, 3).double().eval(), torch.randn(2, 4, dtype=torch.float64))
    assert tde.export(dag, tmp_path / "net.pt2").tolerance == 1e-8


def test_without_checks_nothing_is_measured(small, tmp_path):
    report = tde.export(small, tmp_path / "net.pt2", check=False)
    assert (report.checks, report.latency_ratio) == ((), None)


def test_unknown_formats_are_told_with_what_may_be_meant(small, tmp_path):
    with pytest.raises(tde.UnknownFormatError, match=r"no format 'onxn'; did you mean 'onnx'\?; installed are: pt2"):
        tde.export(small, tmp_path / "net.onnx", format="onxn")
    with pytest.raises(tde.UnknownFormatError, match=r"ending of '.*net.bin' does not tell the format; name one of"):
        tde.export(small, tmp_path / "net.bin")


def test_missing_packages_are_named_with_the_extra(small, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else find(name, *rest))
    expected = r"needs onnx and onnxscript and onnxruntime; install with `pip install 'torch-dag-export\[onnx\]'`"
    with pytest.raises(tde.MissingPackageError, match=expected):
        tde.export(small, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_graph_must_know_its_sizes(tmp_path):
    dag = td.DagModule()
    dag.set_outputs(dag.add_vertex("relu", nn.ReLU(), [dag.add_input("x")]))
    with pytest.raises(td.InputError, match="does not remember the sizes of its inputs; pass example_inputs"):
        tde.export(dag, tmp_path / "net.pt2")
    assert tde.export(dag, tmp_path / "net.pt2", example_inputs=torch.randn(2, 3)).relative == 0


SOURCE = """
from torch_dag_export.format import ExportFormat

error = 0.0

def write(subject, files):
    files[0].write_text(",".join(subject.input_names))

def load(subject, files):
    assert files[0].read_text() == "x"
    return lambda x: subject.dag(x) + error

@hookimpl(optionalhook=True)
def torch_dag_export_formats():
    return (ExportFormat(name="text", suffix=".txt", description="a text", write=write, load=load),)
"""


@pytest.fixture
def formats(site):
    """The module of a plugin whose format computes with an error of the test's choice."""
    site.install("text", SOURCE)
    assert list(tde.export_formats()) == ["text"]
    return sys.modules["sample_module_text"]


@pytest.mark.usefixtures("formats")
def test_hook_export_formats(small, tmp_path):
    report = tde.export(small, tmp_path / "net.txt")
    assert (report.format, report.relative, report.size) == ("text", 0, 1)


@pytest.fixture
def folder(tmp_path):
    """An empty folder, apart from where plugins are installed."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("error", [1.0, math.nan])
def test_a_failed_check_leaves_what_was_there(small, folder, formats, error):
    path = folder / "net.txt"
    tde.export(small, path)
    before = path.read_bytes()
    formats.error = error
    with pytest.raises(tde.ExportCheckError, match=r"from the graph, more than 0\.0001") as caught:
        tde.export(small, path)
    assert not caught.value.report.relative <= 1e-4
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(tde.ExportCheckError):
        tde.export(small, path)
    assert list(folder.iterdir()) == []


def test_a_runtime_that_fails_leaves_no_file(small, folder, formats, monkeypatch):
    monkeypatch.setattr(formats, "error", "a text")
    with pytest.raises(tde.ExportCheckError, match="the runtime of text fails on the exported model: TypeError"):
        tde.export(small, folder / "net.txt")
    assert list(folder.iterdir()) == []


def test_what_pytorch_cannot_export_is_refused(tmp_path):
    class Chooses(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    dag = td.DagModule()
    dag.set_outputs(dag.add_vertex("choice", Chooses(), [dag.add_input("x")]))
    with pytest.raises(tde.ExportError, match=r"torch\.export cannot take the graph: "):
        tde.export(dag, tmp_path / "net.pt2", example_inputs=torch.ones(2))


def test_what_onnx_cannot_express_is_refused(tmp_path):
    needs("onnx")
    dag = td.DagModule()
    dag.set_outputs(dag.add_vertex("bessel", TorchCall("special.bessel_j0", (Slot(0),)), [dag.add_input("x")]))
    with pytest.raises(tde.ExportError, match=r"the program cannot be written as ONNX: .*bessel_j0"):
        tde.export(dag, tmp_path / "net.onnx", example_inputs=torch.ones(2))
    assert list(tmp_path.iterdir()) == []
