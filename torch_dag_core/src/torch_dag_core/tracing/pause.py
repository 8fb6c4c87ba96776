"""A switch that stops recording for a while."""

from __future__ import annotations


class Pause:
    """True inside its ``with`` blocks, which may be nested: calls there run, but are not recorded."""

    def __init__(self) -> None:
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1

    def stay(self) -> None:
        """Stop recording for good."""
        self._depth += 1
