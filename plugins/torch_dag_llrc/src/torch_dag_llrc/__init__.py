"""Low-rank compression with learned ranks. STUB: settings and analysis are real, other steps raise `StubError`."""

from typing import TYPE_CHECKING

from torch_dag_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from torch_dag_llrc.api import *  # noqa: F403

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, distribution="torch-dag-llrc")
