"""The command ``torch-dag``; click and rich are imported only when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command that the process's arguments name."""
    import io
    import sys

    from torch_dag_core.cli.app import app

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # characters that a terminal cannot show are no failure
    app(prog_name="torch-dag")
