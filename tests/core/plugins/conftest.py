"""Distributions with plugins, laid out on disk as pip would leave them."""

from __future__ import annotations

import sys
import textwrap
from importlib import metadata

import pytest

from torch_dag_core.plugins import discovery
from torch_dag_core.plugins.loading import reload_plugins

PREAMBLE = """
from torch import nn
from torch_dag_core.plugins.hookspecs import hookimpl
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec
"""


class Site:
    """A folder a distribution; only these exist for the code under test."""

    def __init__(self, root, monkeypatch):
        self.root, self.monkeypatch, self.distributions = root, monkeypatch, set()

    def install(self, name, source, *, distribution=None, version="1.0", module=None, attribute=""):
        distribution = distribution or f"sample-{name}"
        module = module or f"sample_module_{name}"
        folder = self.root / distribution
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[torch_dag]\n{name} = {module}{attribute}\n")
        if source is not None:
            (folder / f"{module}.py").write_text(PREAMBLE + textwrap.dedent(source))
        self.distributions.add(distribution)
        self.monkeypatch.syspath_prepend(folder)
        reload_plugins()

    def entry_points(self, group):
        found = metadata.entry_points(group=group)
        return [point for point in found if point.dist.name in self.distributions]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place to install plugins into."""
    created = Site(tmp_path, monkeypatch)
    monkeypatch.setattr(discovery, "entry_points", created.entry_points)
    monkeypatch.delenv("TORCH_DAG_PLUGINS", raising=False)
    reload_plugins()
    yield created
    reload_plugins()
    for module in [module for module in sys.modules if module.startswith("sample_module_")]:
        del sys.modules[module]


def op_plugin(key="sample.blur", functions=()):
    """Return the source of a plugin with one op."""
    return f"""
    class Blur(nn.Module):
        pass

    @hookimpl
    def torch_dag_ops():
        return [OpSpec(key={key!r}, target=Blur, functions={functions!r})]
    """


@pytest.fixture
def op_source():
    """Give the source of a plugin with one op."""
    return op_plugin
