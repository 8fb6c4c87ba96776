"""JSON files that name what they are and the version of their format; every reader checks its own content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_dag_core.errors import TorchDagError


@dataclass(frozen=True)
class Document:
    """One kind of file.

    Attributes:
        key: The entry that holds the version of the format, an integer; no other kind of file has it.
        version: The newest version that this release reads, which is the one that it writes.
        what: What error messages call such a file, with its article.
        refused: What they say of other files.
        error: The class of errors about such files.
    """

    key: str
    version: int
    what: str
    refused: str
    error: type[TorchDagError]

    def read(self, path: Path) -> dict[str, Any]:
        """Return the content of a file of this kind.

        Raises:
            TorchDagError: of class ``error``: the file is of another kind, or its format is newer than ``version``.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise self.refusal(path, str(error)) from error
        version = content.get(self.key) if isinstance(content, dict) else None
        if type(version) is not int:
            raise self.refusal(path, f"it has no {self.key!r}")
        if version > self.version:
            message = (
                f"{path} is {self.what} of format {version}, this version reads up to {self.version}; "
                "upgrade torch-dag-pruning"
            )
            raise self.error(message)
        found: dict[str, Any] = content
        return found

    def refusal(self, path: Path, why: str) -> TorchDagError:
        """Return the error that says why a file is not of this kind."""
        return self.error(f"{path} {self.refused}: {why}")
