"""Numbers as people read them: counts, FLOPs, sizes of files, times."""

from __future__ import annotations

_THOUSANDS = ("", " k", " M", " G", " T", " P")
_BYTES = (" B", " kB", " MB", " GB", " TB", " PB")


def count(value: float) -> str:
    """Return a count with three digits.

    >>> count(999), count(1234), count(1_234_567)
    ('999', '1.23 k', '1.23 M')
    """
    return _scaled(value, _THOUSANDS)


def size(value: float) -> str:
    """Return bytes in units of 1000.

    >>> size(999), size(1234), size(46_800_000)
    ('999 B', '1.23 kB', '46.8 MB')
    """
    return _scaled(value, _BYTES)


def seconds(value: float) -> str:
    """Return a time in milliseconds, or in seconds from one on."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        shown = f"{value:.3g}"
        if float(shown) < 1000:
            return f"{shown}{unit}" if unit != units[0] else f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:.3g}{units[-1]}"
