"""Settings as text, read by the type that the config declares."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Optional

import pytest

from torch_dag_core.cli.setting_values import read_value, show_type


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "3", 3),
        (float, "1e-3", 0.001),
        (bool, "True", True),
        (bool, "off", False),
        (str, "1", "1"),
        (Path, "a/b", Path("a/b")),
        (float | None, "none", None),
        (Optional[int], "4", 4),  # noqa: UP045 - a config of a plugin may be written so
        (str | None, "relu", "relu"),
        (int | str, "7", 7),
        (Literal["a", 2], "2", 2),
        (tuple[int, ...], "1,2, 3", (1, 2, 3)),
        (tuple[int, ...], "(1, 2)", (1, 2)),
        (tuple[int, ...], "", ()),
        (tuple[str, ...], "residual,gate", ("residual", "gate")),
        (tuple[str, ...], "('residual',)", ("residual",)),
        (tuple[str, ...], "blocks.[01],head", ("blocks.[01]", "head")),
        (tuple[str, ...], "head,blocks.[01]", ("head", "blocks.[01]")),
        (tuple[int, str], "1,a", (1, "a")),
        (dict[str, int], "{'a': 1}", {"a": 1}),
    ],
)
def test_reading(hint, text, value):
    assert read_value(hint, text) == value
    assert type(read_value(hint, text)) is type(value)


@pytest.mark.parametrize(
    ("hint", "text"),
    [(int, "x"), (bool, "2"), (float | None, "x"), (Literal["a"], "b"), (tuple[int, int], "1"), (dict[str, int], "{")],
)
def test_refusing(hint, text):
    with pytest.raises((ValueError, SyntaxError)):
        read_value(hint, text)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (float | None, "float | None"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a"], "Literal['a']"),
    ],
)
def test_types_are_shown_as_people_write_them(hint, text):
    assert show_type(hint) == text
