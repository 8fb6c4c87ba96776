"""What a graph may require of the state in which it is called: settings of torch that its caller makes.

A condition refers to one of them as ``("setting", name)``, which is 1 where the setting has that value and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

SETTING = "setting"
GRADIENT = "requires_grad"
DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Devices whose autocast a condition may read."""
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


class Setting(NamedTuple):
    """One setting.

    Attributes:
        read: Tells whether it has the value.
        text: The same as Python, for messages.
    """

    read: Callable[[], bool]
    text: str


def _setting(read: Callable[[], bool], text: str) -> Setting:
    # What `torch.compiler.assume_constant_result` does, without importing the compiler. Compiled code is compiled again
    # where one of these settings is another.
    read._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return Setting(read, text)


def _autocast(device: str) -> Setting:
    return _setting(lambda: torch.is_autocast_enabled(device), f"torch.is_autocast_enabled({device!r})")


def _autocast_dtype(device: str, name: str) -> Setting:
    dtype, text = _DTYPES[name], f"torch.get_autocast_dtype({device!r}) == torch.{name}"
    return _setting(lambda: torch.get_autocast_dtype(device) == dtype, text)


def _autocast_to_other(device: str, name: str) -> Setting:
    dtype = _DTYPES[name]
    text = f"torch.is_autocast_enabled({device!r}) and torch.get_autocast_dtype({device!r}) != torch.{name}"
    return _setting(
        lambda: torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != dtype, f"({text})"
    )


def _default_dtype(name: str) -> Setting:
    dtype = _DTYPES[name]
    return _setting(lambda: torch.get_default_dtype() == dtype, f"torch.get_default_dtype() == torch.{name}")


SETTINGS: dict[str, Setting] = {
    **{f"autocast {device}": _autocast(device) for device in DEVICES},
    **{f"autocast dtype {device} {name}": _autocast_dtype(device, name) for device in DEVICES for name in _DTYPES},
    **{
        f"autocast {device} to another type than {name}": _autocast_to_other(device, name)
        for device in DEVICES
        for name in _DTYPES
    },
    **{f"default dtype {name}": _default_dtype(name) for name in _DTYPES},
    "deterministic algorithms": _setting(
        lambda: bool(torch.are_deterministic_algorithms_enabled()), "torch.are_deterministic_algorithms_enabled()"
    ),
}
"""Every setting that a condition may name."""


def setting_is(name: str, *, value: bool) -> tuple[Any, ...]:
    """Return the condition that a setting has this value."""
    return "eq", (SETTING, name), int(value)


def needs_no_gradient(index: int) -> tuple[Any, ...]:
    """Return the condition that input number ``index`` does not require a gradient."""
    return "eq", (GRADIENT, index), 0


def is_of_caller(condition: Any) -> bool:
    """Tell whether a condition is one on the state of the caller rather than on input sizes."""
    if not isinstance(condition, tuple) or len(condition) != 3 or condition[0] != "eq":
        return False
    leaf = condition[1]
    return isinstance(leaf, tuple) and len(leaf) == 2 and leaf[0] in (SETTING, GRADIENT)


def check_of_caller(condition: Any, inputs: int) -> bool:
    """Tell whether a condition on the state of the caller is well formed, for a graph with so many inputs."""
    _, (kind, what), value = condition
    is_known = what in SETTINGS if kind == SETTING and isinstance(what, str) else (
        kind == GRADIENT and type(what) is int and 0 <= what < inputs
    )  # fmt: skip
    return is_known and type(value) is int and value in (0, 1)


def text_of_caller(condition: Any, variable: Callable[[int], str], setting: Callable[[str], str]) -> str:
    """Return a condition on the state of the caller as Python, given texts of an input and of a setting."""
    _, (kind, what), value = condition
    text = setting(what) if kind == SETTING else f"{variable(what)}.requires_grad"
    return text if value else f"not {text}"
