"""The command ``torch-dag new-plugin``."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from torch_dag_core.atomic_files import write_text
from torch_dag_core.cli.answers import answer, answers, say
from torch_dag_core.cli.examples import example
from torch_dag_core.plugins.discovery import CORE_DISTRIBUTION, RESERVED, distribution_version, installed
from torch_dag_core.plugins.hookspecs import HOOK_API

FILES: Mapping[str, str] = {
    "pyproject.toml": "pyproject.txt",
    "README.md": "readme.txt",
    "src/@PACKAGE@/__init__.py": "package.txt",
    "src/@PACKAGE@/modules.py": "modules.txt",
    "src/@PACKAGE@/plugin.py": "plugin.txt",
    "tests/conftest.py": "conftest.txt",
    "tests/test_@KEY@.py": "tests.txt",
    ".github/workflows/test.yml": "workflow.txt",
}
"""The files of a new package: path to the name of the template."""


@click.command("new-plugin", epilog=example("torch-dag new-plugin acme-blur"))
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where the folder is made.",
)
@answers
def new_plugin(name: str, directory: Path) -> None:
    """Write a plugin as a package of its own, whose tests pass at once."""
    _refuse_bad_name(name)
    words = words_for(name)
    folder = directory / words["DISTRIBUTION"]
    if folder.exists():
        message = f"{str(folder)!r} exists already; remove it or pass another --directory"
        raise click.UsageError(message)
    with TemporaryDirectory(dir=directory, prefix=f".{folder.name}.", suffix=".tmp") as workshop:
        whole = Path(workshop) / folder.name
        _write_package(whole, words)
        whole.rename(folder)
    say(f"wrote {folder}\nnext: cd {folder} && pip install -e '.[test]' && pytest")
    answer(folder=folder, distribution=folder.name, files=sorted(filled(path, words) for path in FILES))


def _write_package(folder: Path, words: Mapping[str, str]) -> None:
    for path, template in FILES.items():
        target = folder / filled(path, words)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = files("torch_dag_core.cli").joinpath("templates", template).read_text(encoding="utf-8")
        write_text(target, filled(text, words))


def words_for(name: str) -> dict[str, str]:
    """Return the values of the ``@WORD@`` placeholders in the templates."""
    key = name.replace("-", "_")
    return {
        "NAME": name,
        "KEY": key,
        "DISTRIBUTION": f"torch-dag-{name}",
        "PACKAGE": f"torch_dag_{key}",
        "CLASS": "".join(part.capitalize() for part in name.split("-")) + "Layer",
        "CORE": _requirement(distribution_version(CORE_DISTRIBUTION)),
        "HOOK_API": str(HOOK_API),
    }


def filled(text: str, words: Mapping[str, str]) -> str:
    """Replace every placeholder ``@WORD@`` in a template."""
    return re.sub(r"@([A-Z_]+)@", lambda match: words[match[1]], text)


def _requirement(version: str) -> str:
    """Return a requirement on the core: this release or later, but before the next that may break plugins."""
    release = re.match(r"(\d+)\.(\d+)", version)
    if release is None:
        return CORE_DISTRIBUTION
    major, minor = map(int, release.groups())
    return f"{CORE_DISTRIBUTION}>={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"


def _refuse_bad_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*", name) or keyword.iskeyword(name) or name in RESERVED:
        message = (
            f"{name!r} cannot name a plugin; use lower-case words joined by hyphens, such as 'blur' or 'acme-blur'"
        )
        raise click.UsageError(message)
    for candidate in installed():
        if candidate.name == name:
            message = f"{candidate.origin} is installed already; choose another name"
            raise click.UsageError(message)
