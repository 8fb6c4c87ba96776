"""The command ``torch-dag``; click and rich are imported only when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command that the process's arguments name."""
    from torch_dag_core.cli.app import app

    app(prog_name="torch-dag")
