"""Deployment of graphs: files for other runtimes, each compared with the graph it came from, and weights as int8."""

from typing import TYPE_CHECKING

from torch_dag_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from torch_dag_export.api import *  # noqa: F403

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, distribution="torch-dag-export")
