"""The error of this plugin."""

from __future__ import annotations

from torch_dag_core.errors import TorchDagError


class HubError(TorchDagError, ValueError):
    """A graph cannot be shared as asked, or what was shared cannot be used as asked."""
