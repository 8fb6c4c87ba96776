"""The hooks of torch-dag that this plugin implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from torch_dag_core.algorithms.algorithm import Algorithm, AlgorithmSpec
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_export.format import ExportFormat
    from torch_dag_export.python.form import PythonForm
    from torch_dag_export.quantization.config import WeightQuantizationConfig


@hookimpl
def torch_dag_commands() -> Iterable[click.Command]:
    """Add ``torch-dag export``."""
    from torch_dag_export.cli.command import export

    return (export,)


@hookimpl
def torch_dag_algorithms() -> Iterable[AlgorithmSpec]:
    """Offer weights as 8-bit integers."""
    from torch_dag_core.algorithms.algorithm import AlgorithmSpec
    from torch_dag_export.quantization.config import NAME, WeightQuantizationConfig

    yield AlgorithmSpec(
        name=NAME,
        summary="Store the weights of linear layers, convolutions and embeddings as 8-bit integers.",
        config=WeightQuantizationConfig,
        create=_quantization,
        trains=False,
    )


def _quantization(dag: DagModule, config: WeightQuantizationConfig) -> Algorithm:
    from torch_dag_export.quantization.algorithm import WeightQuantization

    return WeightQuantization(dag, config)


@hookimpl(optionalhook=True)
def torch_dag_export_formats() -> Iterable[ExportFormat]:
    """Add programs of PyTorch and ExecuTorch, models for ONNX Runtime, OpenVINO and LiteRT, and Python files."""
    from torch_dag_export.formats.executorch_program import EXECUTORCH
    from torch_dag_export.formats.litert_model import LITERT
    from torch_dag_export.formats.onnx_model import ONNX
    from torch_dag_export.formats.openvino_model import OPENVINO
    from torch_dag_export.formats.pt2 import PT2
    from torch_dag_export.formats.python_module import PYTHON

    return PT2, ONNX, OPENVINO, EXECUTORCH, LITERT, PYTHON


@hookimpl(optionalhook=True)
def torch_dag_python_forms() -> Iterable[PythonForm]:
    """Say how the core's ops read as Python."""
    from torch_dag_export.python import core_forms as forms

    return (
        *forms.ARITHMETIC, *forms.CONTRACTIONS, *forms.LAYOUT, *forms.NORMALIZATIONS, *forms.REDUCTIONS,
        *forms.SAMPLING, *forms.BUILT_IN,
    )  # fmt: skip
