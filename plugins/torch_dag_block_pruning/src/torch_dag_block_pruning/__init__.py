"""Removal of whole residual branches. STUB: settings and analysis are real, every other step raises `StubError`."""

from typing import TYPE_CHECKING

from torch_dag_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from torch_dag_block_pruning.api import *  # noqa: F403

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, distribution="torch-dag-block-pruning")
