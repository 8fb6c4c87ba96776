"""The closed set of constants that an op may carry, and their JSON form.

An attribute of an op is None, a bool, an int, a float, a complex, a str, a dtype, a slice, an Ellipsis, a
`Slot`, a `Size`, or a tuple of these; an output structure may also hold lists, dicts and records.
"""

from __future__ import annotations

import keyword
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.nested import leaves, map_leaves


@dataclass(frozen=True)
class Slot:
    """The place of one tensor: operand, input or output number ``index``."""

    index: int


@dataclass(frozen=True)
class Size:
    """An integer that follows the sizes of a vertex's operands.

    The value is ``num * prod(operands[i].shape[d] for i, d in dims) // den + add``.
    """

    dims: tuple[tuple[int, int], ...]
    num: int = 1
    den: int = 1
    add: int = 0

    def resolve(self, operands: Sequence[Tensor]) -> int:
        """Return the integer for these operands."""
        value = self.num
        for operand, dim in self.dims:
            value = value * operands[operand].shape[dim]
        return value // self.den + self.add

    def shifted(self, by: int) -> Size:
        """Return the same size with every operand index moved by ``by``."""
        return Size(tuple((operand + by, dim) for operand, dim in self.dims), self.num, self.den, self.add)

    def __str__(self) -> str:
        product = "*".join(f"x{operand}.shape[{dim}]" for operand, dim in self.dims)
        num = f"{self.num}*" if self.num != 1 else ""
        den = f"//{self.den}" if self.den != 1 else ""
        add = f"{self.add:+d}" if self.add else ""
        return f"{num}{product}{den}{add}"


@dataclass(frozen=True)
class Record:
    """The template of a namedtuple or a dataclass-like object, rebuilt without its class.

    Attributes:
        kind: ``namedtuple``, ``dataclass``, or ``mapping`` for a dataclass that is a dictionary as well.
        name: Name of the class.
        fields: Names of the fields, with the template of each.
    """

    kind: str
    name: str
    fields: tuple[tuple[str, Any], ...]


def resolve(value: Any, operands: Sequence[Tensor]) -> Any:
    """Replace every `Size` inside ``value`` by its integer for these operands."""
    return map_leaves(value, lambda leaf: leaf.resolve(operands) if isinstance(leaf, Size) else leaf)


def fill(value: Any, operands: Sequence[Any]) -> Any:
    """Replace every `Slot` by its operand and every `Size` by its integer."""

    def replace(leaf: Any) -> Any:
        if isinstance(leaf, Slot):
            return operands[leaf.index]
        return leaf.resolve(operands) if isinstance(leaf, Size) else leaf

    return map_leaves(value, replace)


def sizes_in(value: Any) -> list[Size]:
    """List every `Size` inside ``value``."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, Size)]


DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
        "complex64", "complex128",
    )
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def _encode_float(value: float) -> Any:
    return value if math.isfinite(value) else {"float": repr(value)}


def _encode_size(value: Size) -> Any:
    return {"size": [[list(pair) for pair in value.dims], value.num, value.den, value.add]}


def _encode_record(value: Record) -> Any:
    return {"record": [value.kind, value.name, [[name, encode(item)] for name, item in value.fields]]}


_ENCODERS: dict[type, Any] = {
    type(None): lambda v: v,
    bool: lambda v: v,
    int: lambda v: v,
    str: lambda v: v,
    float: _encode_float,
    complex: lambda v: {"complex": [encode(v.real), encode(v.imag)]},
    torch.dtype: lambda v: {"dtype": _DTYPE_NAMES[v]},
    slice: lambda v: {"slice": [encode(v.start), encode(v.stop), encode(v.step)]},
    type(Ellipsis): lambda _: {"ellipsis": True},
    Slot: lambda v: {"slot": v.index},
    Size: _encode_size,
    Record: _encode_record,
    tuple: lambda v: [encode(item) for item in v],
    torch.Size: lambda v: [int(item) for item in v],
    list: lambda v: {"list": [encode(item) for item in v]},
    dict: lambda v: {"dict": [[encode(key), encode(item)] for key, item in v.items()]},
}


def encode(value: Any) -> Any:
    """Return the JSON form of a constant.

    Raises:
        TypeError: the value is outside the closed set.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        message = f"a {type(value).__name__} ({value!r}) cannot be stored as a constant of a graph"
        raise TypeError(message)
    return encoder(value)


def _decode_size(data: Any) -> Size:
    dims, num, den, add = data
    size = Size(tuple((_integer(i), _integer(d)) for i, d in dims), _integer(num), _integer(den), _integer(add))
    if size.den <= 0:
        message = f"a size divides by {size.den}"
        raise ValueError(message)
    return size


def _decode_record(data: Any) -> Record:
    kind, name, fields = data
    record = Record(kind, name, tuple((field, decode(item)) for field, item in fields))
    names = [field for field, _ in record.fields]
    for word in (name, *names):
        _refuse_non_identifier(word)
    private = kind == "namedtuple" and any(field.startswith("_") for field in names)
    if kind not in ("namedtuple", "dataclass", "mapping") or len(set(names)) < len(names) or private:
        message = f"{kind!r} with fields {names!r} is not a kind of record"
        raise ValueError(message)
    return record


def _refuse_non_identifier(word: Any) -> None:
    """Raise `ValueError` for a word that is not a plain identifier, since it becomes part of generated code."""
    if type(word) is not str or not is_identifier(word) or keyword.iskeyword(word) or word.startswith("__"):
        message = f"{word!r} is not the name of a record or of a field"
        raise ValueError(message)


def is_identifier(word: str) -> bool:
    """Tell whether generated code may use a name; Python would read one that is not in normal form as another."""
    return word.isidentifier() and unicodedata.normalize("NFKC", word) == word


def _integer(value: Any) -> int:
    if type(value) is not int:
        message = f"expected an integer, got {value!r}"
        raise ValueError(message)
    return value


def _decode_float(text: Any) -> float:
    if text not in ("inf", "-inf", "nan"):
        message = f"{text!r} is not a special float"
        raise ValueError(message)
    return float(text)


_DECODERS: dict[str, Any] = {
    "float": _decode_float,
    "complex": lambda data: complex(decode(data[0]), decode(data[1])),
    "dtype": lambda data: DTYPES[data],
    "slice": lambda data: slice(*(decode(item) for item in data)),
    "ellipsis": lambda _: ...,
    "slot": lambda data: Slot(_integer(data)),
    "size": _decode_size,
    "record": _decode_record,
    "list": lambda data: [decode(item) for item in data],
    "dict": lambda data: {decode(key): decode(item) for key, item in data},
}


def decode(data: Any) -> Any:
    """Return the constant whose JSON form is ``data``.

    Raises:
        ValueError, TypeError, KeyError: ``data`` is not the JSON form of a constant.
    """
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    if isinstance(data, dict):
        ((tag, content),) = data.items()
        return _DECODERS[tag](content)
    return data
