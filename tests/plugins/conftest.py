"""Built wheels and clean environments that see torch, but none of our sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

# Projects of their own, run in environments of their own.
collect_ignore = ["third_party", "downstream"]

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OURS = {
    "core": ROOT / "torch_dag_core",
    "timm": ROOT / "torch_dag_timm",
    "pruning": ROOT / "torch_dag_pruning",
    **{folder.name: folder for folder in sorted(ROOT.glob("plugins/*")) if (folder / "pyproject.toml").exists()},
}
CONTRACT = """
import pytest

@pytest.mark.torch_dag_plugin("{plugin}")
def test_contract(torch_dag_contract):
    torch_dag_contract()
"""
STRANGERS = {"acme": HERE / "third_party", "downstream": HERE / "downstream"}


class Wheels:
    """Builds the wheel of a folder once."""

    def __init__(self, folder):
        self.folder = folder
        self._built = {}

    def of(self, source):
        if source not in self._built:
            target = self.folder / f"{len(self._built)}-{source.name}"
            command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
            subprocess.run(command, cwd=source, check=True, capture_output=True)
            (self._built[source],) = target.glob("*.whl")
        return self._built[source]


class Environment:
    """A virtual environment with a few wheels, beside everything that is installed here but ours."""

    def __init__(self, folder, without=()):
        self.folder = folder
        self._links = folder / "beside"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self._links.mkdir()
        self.python = folder / "bin" / "python"
        for entry in self._foreign(without):
            (self._links / entry.name).symlink_to(entry)
        self.packages.joinpath("beside.pth").write_text(str(self._links))

    @property
    def packages(self):
        return next((self.folder / "lib").glob("python*")) / "site-packages"

    @staticmethod
    def _foreign(without):
        hidden = ("torch_dag", "acme", "downstream", "__editable__", "_torch_dag", *without)
        entries = Path(sysconfig.get_path("purelib")).iterdir()
        return [entry for entry in entries if not entry.name.startswith(hidden) and entry.suffix != ".pth"]

    def install(self, *wheels):
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-index"]
        subprocess.run([*pip, "--no-deps", "--force-reinstall", *map(str, wheels)], check=True, capture_output=True)
        return self

    def run(self, *command, check=True, **variables):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TORCH_DAG"))}
        environment = {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "250", **variables}
        arguments = [str(self.folder / "bin" / command[0]), *map(str, command[1:])]
        result = subprocess.run(
            arguments, env=environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def step(self, name, file):
        """Run one step of the downstream project and return its findings."""
        return json.loads(self.run("python", "-m", "downstream", name, file).stdout)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """Build wheels on demand."""
    pytest.importorskip("hatchling")
    return Wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def environments(tmp_path_factory, wheels):
    """Make environments on demand: a name, or a changed copy of the sample plugin, for each wheel to install."""
    made = {}

    def environment(*names, without=()):
        key = (*names, without)
        if key not in made:
            sources = {**OURS, **STRANGERS}
            created = Environment(tmp_path_factory.mktemp("environment"), without)
            made[key] = created.install(*(wheels.of(sources.get(name, name)) for name in names))
        return made[key]

    return environment


@pytest.fixture
def run_contract(tmp_path):
    """Return a function that runs the contract of a plugin in an environment, from tests as its author writes them."""

    def run(environment, plugin):
        tests = tmp_path / "tests"
        tests.mkdir()
        (tests / "conftest.py").write_text('pytest_plugins = ["torch_dag_core.testing"]\n')
        (tests / "test_contract.py").write_text(CONTRACT.format(plugin=plugin))
        options = ("-v", "-W", "error", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tests)
        return environment.run("python", "-m", "pytest", *options, tests).stdout

    return run


@pytest.fixture(scope="session")
def changed_acme(tmp_path_factory):
    """Return the sample plugin as its author changed it: a version, and texts to replace in ``ops.py``."""

    def change(version, **files):
        copy = tmp_path_factory.mktemp("acme") / f"acme-{version}"
        shutil.copytree(STRANGERS["acme"], copy)
        project = copy / "pyproject.toml"
        project.write_text(project.read_text().replace('version = "1.0"', f'version = "{version}"'))
        for name, replacements in files.items():
            path = copy / "src" / "acme_torch_dag" / f"{name}.py"
            text = path.read_text()
            for old, new in replacements.items():
                assert old in text
                text = text.replace(old, new)
            path.write_text(text)
        return copy

    return change


@pytest.fixture(scope="session")
def distributions_of_plugins():
    """Names of the distributions under ``plugins/``."""
    return tuple(name for name in OURS if name not in ("core", "timm", "pruning"))
