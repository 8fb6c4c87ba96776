"""Settings of algorithms as text: read by the type that the config declares, and shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import click

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, Setting
from torch_dag_core.cli.literals import read_value
from torch_dag_core.cli.output_path import OutputPath
from torch_dag_core.errors import SettingsError

_PREFIX = "setting_"
_TAKEN = frozenset(
    {
        "arg",
        "weights",
        "pretrained",
        "size",
        "input",
        "inputs",
        "seed",
        "device",
        "dtype",
        "config",
        "analyze",
        "out",
        "force",
        "help",
        "calibrate",
        "samples",
        "json",
        "quiet",
        "verbose",
    }
)

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


def show_type(hint: Any) -> str:
    """Return a type as people write it."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def show_default(setting: Setting) -> str:
    """Return a default as people write it."""
    return "required" if setting.default is dataclasses.MISSING else repr(setting.default)
