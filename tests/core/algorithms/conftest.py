"""A complete small algorithm, offered by a plugin that is laid out on disk as pip would leave it."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from torch_dag_core.cli.app import app
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins import discovery
from torch_dag_core.plugins.loading import reload_plugins

SOURCE = '''
"""Takes out vertices of one class that have one operand: the smallest algorithm with all four steps."""

from dataclasses import dataclass, field

import torch
from torch import nn

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, Losses
from torch_dag_core.errors import StubError
from torch_dag_core.plugins.hookspecs import hookimpl
from torch_dag_core.algorithms.reports import Candidate, CompressionReport


@dataclass(frozen=True)
class Settings:
    keep: int = field(default=0, metadata={"help": "how many stay"})
    classes: tuple[str, ...] = ("Tanh",)
    scale: float | None = None
    loud: bool = False

    def __post_init__(self):
        if self.keep < 0:
            raise ValueError(f"keep must be at least 0, got {self.keep}")


class Thinning:
    def __init__(self, dag, config):
        self.dag, self.config, self.prepared = dag, config, None
        if config.keep > len(self.found(dag)):
            raise ValueError(f"the graph has only {len(self.found(dag))} such vertices")

    def found(self, dag):
        return [v for v in dag.inner_vertices if type(v.module).__name__ in self.config.classes]

    def analyze(self):
        names = [v.name for v in self.found(self.dag)]
        candidates = [Candidate(name=n, kind="activation", flops=10, removable=10) for n in names]
        return CompressionReport(algorithm="thinning", flops=100, reachable_flops=100 - 10 * len(names),
                                 candidates=candidates)

    def prepare(self):
        self.prepared = self.dag.clone()
        return self.prepared

    def losses(self, global_step):
        return Losses(torch.tensor(0.75))

    def finalize(self):
        for vertex in self.found(self.prepared)[self.config.keep:]:
            self.prepared.remove_vertex(vertex)
        return self.prepared


@dataclass(frozen=True)
class Required:
    share: float


class Unfinished(Thinning):
    config = Settings()

    def __init__(self, dag, config):
        super().__init__(dag, Settings())

    def prepare(self):
        raise StubError("unfinished", "prepare", "somebody to write it")


@hookimpl
def torch_dag_algorithms():
    yield AlgorithmSpec(name="thinning", summary="Take out activations.", config=Settings, create=Thinning,
                        trains=False)
    yield AlgorithmSpec(name="learned-thinning", summary="Learn which.", config=Settings, create=Thinning,
                        status="experimental")
    yield AlgorithmSpec(name="unfinished", summary="Nothing yet.", config=Required, create=Unfinished, status="stub")
    yield AlgorithmSpec(name="impostor", summary="None at all.", config=Settings, create=lambda dag, config: [])
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make the sample plugin the only one that is installed."""
    info = tmp_path / "sample_thinning-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-thinning\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[torch_dag]\nthinning = sample_thinning_plugin\n")
    (tmp_path / "sample_thinning_plugin.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    (point,) = [each for each in metadata.entry_points(group="torch_dag") if each.module == "sample_thinning_plugin"]
    monkeypatch.setattr(discovery, "entry_points", lambda group: [point])
    monkeypatch.delenv("TORCH_DAG_PLUGINS", raising=False)
    reload_plugins()
    yield
    reload_plugins()
    sys.modules.pop("sample_thinning_plugin", None)


@pytest.fixture
def none_installed(monkeypatch):
    monkeypatch.setattr(discovery, "entry_points", lambda group: [])
    monkeypatch.delenv("TORCH_DAG_PLUGINS", raising=False)
    reload_plugins()
    yield
    reload_plugins()


@pytest.fixture
def run(monkeypatch):
    """Run a command line in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def dag():
    """x -> linear -> tanh -> linear1 -> tanh1"""
    torch.manual_seed(0)
    built = DagModule()
    vertex = built.add_input("x")
    for name in ("linear", "tanh", "linear1", "tanh1"):
        vertex = built.add_vertex(name, nn.Linear(4, 4) if "linear" in name else nn.Tanh(), [vertex])
    built.set_output(vertex)
    return built.eval()


@pytest.fixture
def saved(dag, tmp_path):
    path = tmp_path / "model.safetensors"
    dag.save(path)
    return path
