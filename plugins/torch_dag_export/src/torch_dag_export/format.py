"""The record of a format to export to, and the formats that are installed."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from torch_dag_core.plugins.loading import add_hookspecs, named_contributions
from torch_dag_core.plugins.record_checks import CALLABLE, OPTIONAL_CALLABLE, Kind, check_fields
from torch_dag_export import hookspecs
from torch_dag_export.errors import MissingPackageError, UnknownFormatError
from torch_dag_export.subject import ExportSubject

Runtime: TypeAlias = Callable[..., Any]
"""An exported model that was loaded: called with one tensor for each input of the graph, it returns tensors, alone or
in containers, in the order in which the graph returns them."""

_NAME = Kind("a name", lambda value: isinstance(value, str) and value.isidentifier())
_SUFFIX = Kind("a suffix such as '.onnx'", lambda value: isinstance(value, str) and value.startswith("."))


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format that graphs are exported to.

    Attributes:
        name: What users call it.
        suffix: The usual ending of the file's name, with its dot.
        description: What the files are and what runs them, in a few words.
        write: ``write(subject, files)`` writes the model; ``files`` is the path of the file, then those of its
            companions. They are temporary files, which are moved to where they belong after the check.
        load: ``load(subject, files)`` loads what was written into its runtime. Latency is measured with the result.
        run: ``run(subject, files, cases)`` returns what the written model computes for each case, a list of one tensor
            for each input of the graph. Without it, what ``load`` returns is called.
        companions: Suffixes of the files that are written beside the file; they replace the suffix of its name.
        free_batch: Whether files can leave the batch size free; otherwise they keep that of the example.
        packages: Packages that must be importable.
        requirement: What to pass to ``pip install`` where one of them is not.
    """

    name: str
    suffix: str
    description: str
    write: Callable[[ExportSubject, Sequence[Path]], None]
    load: Callable[[ExportSubject, Sequence[Path]], Runtime]
    run: Callable[[ExportSubject, Sequence[Path], Sequence[Sequence[Tensor]]], list[Any]] | None = None
    companions: tuple[str, ...] = ()
    free_batch: bool = True
    packages: tuple[str, ...] = ()
    requirement: str = ""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong kind."""
        check_fields(
            self,
            {"name": _NAME, "suffix": _SUFFIX, "write": CALLABLE, "load": CALLABLE, "run": OPTIONAL_CALLABLE},
        )

    def files(self, path: str | Path) -> tuple[Path, ...]:
        """Return the paths of all files of an export to ``path``, this one first."""
        path = Path(path)
        return (path, *(path.with_suffix(suffix) for suffix in self.companions))

    def require_packages(self) -> None:
        """Make sure that all packages are installed, without importing them.

        Raises:
            MissingPackageError: names those that are not, and how to install them.
        """
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            message = (
                f"the format {self.name!r} needs {' and '.join(missing)}; install with "
                f"`pip install '{self.requirement or ' '.join(missing)}'`"
            )
            raise MissingPackageError(message)


def export_formats() -> Mapping[str, ExportFormat]:
    """Return the formats of all installed plugins by name."""
    add_hookspecs(hookspecs)
    return named_contributions("torch_dag_export_formats", ExportFormat)


def find_format(name: str | None, path: str | Path) -> ExportFormat:
    """Return a format by its name or, without one, by the ending of the file's name.

    Raises:
        UnknownFormatError: there is none; the message has close names and lists all.
    """
    formats = export_formats()
    known = ", ".join(f"{each.name} ({each.suffix})" for each in formats.values())
    if name is None:
        suffix = Path(path).suffix
        found = [each for each in formats.values() if each.suffix == suffix]
        if len(found) == 1:
            return found[0]
        message = f"the ending of {str(path)!r} does not tell the format; name one of: {known}"
        raise UnknownFormatError(message)
    if name not in formats:
        close = difflib.get_close_matches(name, formats, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        message = f"there is no format {name!r}{hint}; installed are: {known}"
        raise UnknownFormatError(message)
    return formats[name]
