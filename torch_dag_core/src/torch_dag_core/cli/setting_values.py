"""Settings of algorithms as text: read by the type that the config declares, and shown."""

from __future__ import annotations

import ast
import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, Setting
from torch_dag_core.cli.output_path import OutputPath
from torch_dag_core.errors import SettingsError

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


_PREFIX = "setting_"
_TAKEN = frozenset({"arg", "weights", "size", "config", "analyze", "out", "force", "help", "calibrate", "samples"})

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def setting_options(spec: AlgorithmSpec) -> list[Decorator]:
    """Return the decorators that give a command one option for each setting of an algorithm.

    The setting ``keep_flops`` becomes ``--keep-flops``, and a flag ``verify`` becomes ``--verify`` and ``--no-verify``.
    Values stay text, for `option_texts` and `read_settings`. A setting with the name of another option of the command
    gets none: it is written ``KEY=VALUE``.
    """
    return [_option(each) for each in spec.settings().values() if each.name.replace("_", "-") not in _TAKEN]


def _option(setting: Setting) -> Decorator:
    flag, name = setting.name.replace("_", "-"), _PREFIX + setting.name
    note = "required" if setting.required else "" if setting.default is None else f"default: {show_default(setting)}"
    text = f"{setting.help}  [{note}]" if note else setting.help
    if setting.hint is bool:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=text)
    return click.option(f"--{flag}", name, metavar=show_type(setting.hint).removesuffix(" | None"), help=text)


def option_texts(given: Mapping[str, Any]) -> list[str]:
    """Return ``key=value`` texts of the options of `setting_options` that were given."""
    return [f"{name.removeprefix(_PREFIX)}={value}" for name, value in given.items() if value is not None]


def check_outputs(spec: AlgorithmSpec, settings: Mapping[str, Any]) -> None:
    """Check the paths that an algorithm will write to as an `OutputPath` of the running command.

    Raises:
        click.BadParameter: a path cannot be written to; names the option.
    """
    context = click.get_current_context()
    for name, setting in spec.settings().items():
        if setting.is_output and settings.get(name) is not None:
            OutputPath().convert(settings[name], click.Option([f"--{name.replace('_', '-')}"]), context)


def read_settings(spec: AlgorithmSpec, texts: Sequence[str]) -> dict[str, Any]:
    """Turn ``key=value`` texts into settings of an algorithm; values of unknown keys stay text.

    Raises:
        SettingsError: a text is no ``key=value``, a key is given twice, or a value is not of its setting's type.
    """
    known = spec.settings()
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            message = f"{text!r} is no setting; write key=value"
            raise SettingsError(message)
        if key in found:
            message = f"the setting {key!r} is given twice"
            raise SettingsError(message)
        found[key] = _read(known[key], value) if key in known else value
    return found


def _read(setting: Setting, text: str) -> Any:
    try:
        return read_value(setting.hint, text)
    except (ValueError, SyntaxError) as error:
        message = f"{setting.name} takes {show_type(setting.hint)}, got {text!r}"
        raise SettingsError(message) from error


def read_value(hint: Any, text: str) -> Any:
    """Turn a text into a value of a type.

    >>> read_value(tuple[int, ...] | None, "1,2"), read_value(bool, "no"), read_value(float | None, "none")
    ((1, 2), False, None)

    Raises:
        ValueError: the text does not stand for such a value.
    """
    if hint in _READERS:
        return _READERS[hint](text)
    reader = _GENERIC.get(get_origin(hint))
    return ast.literal_eval(text) if reader is None else reader(hint, text)


def _read_bool(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError(text)
    return _WORDS[text.lower()]


def _read_none(text: str) -> None:
    if text.lower() not in ("none", ""):
        raise ValueError(text)


def _read_union(hint: Any, text: str) -> Any:
    """Return the first reading that works; text, which takes anything, comes last."""
    for choice in sorted(get_args(hint), key=lambda choice: choice is str):
        try:
            return read_value(choice, text)
        except (ValueError, SyntaxError):
            continue
    raise ValueError(text)


def _read_literal(hint: Any, text: str) -> Any:
    for choice in get_args(hint):
        if str(choice) == text:
            return choice
    raise ValueError(text)


def _read_tuple(hint: Any, text: str) -> tuple[Any, ...]:
    """Read items with commas between them, with or without brackets."""
    inside = text.strip()
    if inside[:1] + inside[-1:] in ("()", "[]"):
        inside = inside[1:-1]
    items = [item.strip().strip("'\"") for item in inside.split(",") if item.strip()]
    kinds = get_args(hint)
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(items)
    return tuple(read_value(kind, item) for kind, item in zip(kinds, items, strict=True))


_READERS: dict[Any, Callable[[str], Any]] = {
    bool: _read_bool, int: int, float: float, str: str, Path: Path, type(None): _read_none,
}  # fmt: skip
_GENERIC: dict[Any, Callable[[Any, str], Any]] = {
    Union: _read_union, types.UnionType: _read_union, Literal: _read_literal, tuple: _read_tuple,
}  # fmt: skip


def show_type(hint: Any) -> str:
    """Return a type as people write it."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def show_default(setting: Setting) -> str:
    """Return a default as people write it."""
    return "required" if setting.default is dataclasses.MISSING else repr(setting.default)
