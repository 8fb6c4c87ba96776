"""Graphs on the Hugging Face Hub and in folders of its layout, with model cards made of measured values."""

from typing import TYPE_CHECKING

from torch_dag_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from torch_dag_hub.api import *  # noqa: F403

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, distribution="torch-dag-hub")
