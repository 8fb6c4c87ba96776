"""Pictures of graphs: an interactive page, a vector graphic, files for Graphviz and for Model Explorer."""

from typing import TYPE_CHECKING

from torch_dag_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from torch_dag_show.api import *  # noqa: F403

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, distribution="torch-dag-show")
