from __future__ import annotations

import inspect

import torch_dag_core as td
from torch_dag_core import errors


def test_every_public_name_exists_once_and_in_order():
    assert all(hasattr(td, name) for name in td.__all__)
    assert len(set(td.__all__)) == len(td.__all__)
    assert td.__all__ == sorted(td.__all__, key=lambda name: (not name[0].isupper(), name))


def test_every_error_is_public():
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert classes <= set(td.__all__)


def test_every_public_name_is_documented():
    undocumented = [name for name in td.__all__ if not inspect.getdoc(getattr(td, name))]
    assert not undocumented
