"""The rows of a sweep as JSON lines: one file for each job, which an interrupted job goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from torch_dag_core.atomic_files import write_text
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.sweep import Row

_KEY: Final = "torch_dag_sweep"
_FORMAT: Final = 1


@dataclass
class SweepFile:
    """The rows of a sweep by the key of their case, and the file that holds them.

    Attributes:
        path: The file; it is replaced atomically with each row.
        of: What was swept: model, data and settings, as values that JSON can hold.
        rows: The rows.
    """

    path: Path
    of: Mapping[str, Any]
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> SweepFile:
        """Return what a sweep wrote.

        Raises:
            PlanError: the file was not written by a sweep, or by a newer release.
        """
        try:
            first, *rest = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
            version = first[_KEY]
            rows = [Row.read(values) for values in rest]
            found = cls(path, first["of"], {row.case.key: row for row in rows})
        except (ValueError, KeyError, TypeError) as error:
            message = f"{str(path)!r} was not written by `torch-dag sweep`"
            raise PlanError(message) from error
        if version != _FORMAT:
            message = f"{str(path)!r} has the format {version}, this release reads {_FORMAT}; sweep anew"
            raise PlanError(message)
        return found

    @classmethod
    def opened(cls, path: Path, of: Mapping[str, Any], *, resume: bool) -> SweepFile:
        """Return the file of an earlier run that goes on, or an empty one.

        Raises:
            PlanError: the earlier run had another model, other data or other settings.
        """
        if not (resume and path.exists()):
            return cls(path, of)
        before = cls.read(path)
        wanted = json.loads(json.dumps(of))
        changed = [name for name in wanted if before.of.get(name) != wanted[name]]
        if changed:
            message = (
                f"{str(path)!r} is a sweep with another {changed[0]}; choose another file, or --force without --resume"
            )
            raise PlanError(message)
        return before

    def add(self, row: Row) -> None:
        """Add a row, and replace the file."""
        self.rows[row.case.key] = row
        lines = ({_KEY: _FORMAT, "of": dict(self.of)}, *(asdict(each) for each in self.rows.values()))
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))


def joined(files: Sequence[SweepFile]) -> list[Row]:
    """Return the rows of several files; of a case that is in several, the last one.

    Raises:
        PlanError: the files are of different models, data or settings.
    """
    for each in files[1:]:
        if each.of != files[0].of:
            message = f"{str(files[0].path)!r} and {str(each.path)!r} are sweeps of different things"
            raise PlanError(message)
    return list({key: row for each in files for key, row in each.rows.items()}.values())


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, the smallest error of each target first, with failures last."""
    head = f"{'target':>7}  {'criterion':12} {'recover':14} {'FLOPs':>8} {'parameters':>11} {'error':>8} {'seconds':>8}"
    order = sorted(rows, key=lambda row: (-row.target, row.error is None, row.error or 0.0))
    return "\n".join([head, *map(_line, order)])


def _line(row: Row) -> str:
    start = f"{row.target:7.1%}  {row.criterion:12} {row.recover:14}"
    if row.failure:
        return f"{start} {row.failure}"
    return f"{start} {row.flops:8.2%} {row.parameters:11.2%} {row.error:8.2%} {row.seconds:8.1f}"
