"""The models that a survey goes through: those that a plugin lists, or those that a file lists."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch_dag_core.cli.example_choice import InputShape
from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.loading import named_contributions
from torch_dag_core.plugins.model_sources import ModelList

FILE_SUFFIX = ".toml"
_TEXTS = ("name", "reference", "distribution")
_LISTS = ("arguments", "inputs")


@dataclass(frozen=True)
class Listed:
    """How a model is built and called.

    Attributes:
        reference: As on the command line, such as ``timm:resnet18`` or ``package.module:callable``.
        arguments: For the callable that the reference names, as on the command line.
        inputs: What it is called with; where that is empty, plugins are asked, then the first layer decides.
    """

    reference: str
    arguments: tuple[str, ...] = ()
    inputs: tuple[InputShape, ...] = ()


@dataclass(frozen=True)
class Library:
    """Models that are examined together.

    Attributes:
        name: What the page calls them.
        distributions: Those whose releases decide what the models are.
        packages: Worth importing once, before many models are built.
        models: Returns the models by name; called only when they are needed.
    """

    name: str
    distributions: tuple[str, ...]
    packages: tuple[str, ...]
    models: Callable[[], Mapping[str, Listed]]


def find_library(source: str) -> Library:
    """Return the models under a prefix that a plugin lists, or those of a TOML file.

    Raises:
        ModelReferenceError: there is neither; the message says which prefixes are listed, or what is wrong in the file.
    """
    return _of_file(Path(source)) if source.endswith(FILE_SUFFIX) else _of_plugin(source)


def _of_plugin(source: str) -> Library:
    found = named_contributions("torch_dag_model_lists", ModelList)
    if source not in found:
        message = (
            f"no installed plugin lists models under {source!r}; those listed are {', '.join(sorted(found))}. "
            f"If there is a plugin for it, try: pip install torch-dag-{source}"
        )
        raise ModelReferenceError(message)
    listed = found[source]
    return Library(source, (listed.distribution,), listed.packages, partial(_named, listed))


def _named(listed: ModelList) -> dict[str, Listed]:
    return {name: Listed(f"{listed.name}:{name}") for name in listed.names()}


def _of_file(path: Path) -> Library:
    """Read a file of tables ``[[model]]``, each with a name and a reference."""
    try:
        with path.open("rb") as file:
            entries = tomllib.load(file).get("model", [])
    except OSError as error:
        message = f"{str(path)!r} cannot be read: {error.strerror}"
        raise ModelReferenceError(message) from error
    except tomllib.TOMLDecodeError as error:
        message = f"{str(path)!r} is no TOML: {error}"
        raise ModelReferenceError(message) from error
    if not isinstance(entries, list) or not entries:
        message = f"{str(path)!r} lists no models; each is a table [[model]] with a name and a reference"
        raise ModelReferenceError(message)
    checked = [_checked(entry, f"model {number} of {str(path)!r}") for number, entry in enumerate(entries, 1)]
    models = {entry["name"]: _listed(entry, path) for entry in checked}
    if len(models) < len(checked):
        names = [entry["name"] for entry in checked]
        message = f"{str(path)!r} has two models {next(name for name in names if names.count(name) > 1)!r}"
        raise ModelReferenceError(message)
    distributions = dict.fromkeys(entry["distribution"] for entry in checked if "distribution" in entry)
    return Library(path.stem.replace("_", " "), tuple(distributions), (), lambda: models)


def _checked(entry: Any, place: str) -> dict[str, Any]:
    """Return an entry whose fields are all of their kinds."""
    fields = entry if isinstance(entry, dict) else {}
    wrong = [name for name in fields if name not in (*_TEXTS, *_LISTS)]
    wrong += [name for name in _TEXTS[:2] if name not in fields]
    wrong += [name for name in _TEXTS if not isinstance(fields.get(name, ""), str)]
    wrong += [name for name in _LISTS if not _is_texts(fields.get(name, []))]
    if wrong:
        message = (
            f"{place} is wrong in {', '.join(map(repr, dict.fromkeys(wrong)))}: name and reference are texts that have "
            "to be there, distribution is one that may be, arguments and inputs are lists of texts"
        )
        raise ModelReferenceError(message)
    return fields


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _listed(entry: Mapping[str, Any], path: Path) -> Listed:
    return Listed(entry["reference"], tuple(entry.get("arguments", ())), _inputs(entry.get("inputs", ()), path))


def _inputs(texts: Sequence[str], path: Path) -> tuple[InputShape, ...]:
    try:
        return tuple(map(InputShape.parse, texts))
    except ValueError as error:
        message = f"{str(path)!r} has the input {str(error)!r}, which is not of the form [NAME:]SHAPE[:DTYPE]"
        raise ModelReferenceError(message) from error
