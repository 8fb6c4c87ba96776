"""A graph with the methods that users of the Hub know from other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_hub.downloading import from_pretrained
from torch_dag_hub.errors import HubError
from torch_dag_hub.folder import save_pretrained
from torch_dag_hub.uploading import push_to_hub


class PrunedNet(nn.Module, ModelHubMixin):  # type: ignore[misc]
    """A graph that is loaded, saved and uploaded by methods.

        net = PrunedNet.from_pretrained("user/name")     # or a folder
        net(images)
        PrunedNet(dag).save_pretrained("folder")
        PrunedNet(dag).push_to_hub("user/name")

    `from_pretrained`, `save_pretrained` and `push_to_hub` of this package do the same with plain graphs, and take more
    settings.

    Attributes:
        dag: The graph, which can be edited and pruned.
        pretrained_cfg: How inputs are prepared, as in `SharingSettings`; None if that is not known.
    """

    def __init__(self, dag: DagModule, pretrained_cfg: dict[str, Any] | None = None) -> None:
        super().__init__()
        require_graphs("PrunedNet", dag)
        self.dag = dag
        self.pretrained_cfg = pretrained_cfg

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph; arguments and result are those of the model that it was made from."""
        return self.dag(*args, **kwargs)

    def push_to_hub(
        self, repo_id: str, *, token: str | None = None, private: bool | None = None, config: Any = None,
        branch: str | None = None, **commit: Any,
    ) -> str:  # fmt: skip
        """Upload the graph with ``config.json`` and a model card; see `torch_dag_hub.push_to_hub`.

        Args:
            repo_id: ``"user/name"``, or ``"name"`` for a repository of your own.
            token: Of your account; by default the one that ``hf auth login`` stored.
            private: Whether a repository that is created is private.
            config: What the mixin passes on; ``config.json`` is made from the graph.
            branch: A branch that exists; the main one by default.
            **commit: Options of `huggingface_hub.HfApi.upload_folder`: ``commit_message`` and ``create_pr``.

        Raises:
            HubError: an option cannot be followed; see also `torch_dag_hub.push_to_hub`.
        """
        if config not in (None, self._hub_mixin_config) or commit.pop("model_card_kwargs", None):
            message = (
                "config.json and the model card of a graph are made from the graph; leave config and model_card_kwargs "
                "out, and pass metadata to torch_dag_hub.push_to_hub"
            )
            raise HubError(message)
        options = {key: value for key, value in {**commit, "revision": branch}.items() if value is not None}
        return push_to_hub(
            self.dag, repo_id, token=token, private=private, commit=options, pretrained_cfg=self.pretrained_cfg
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the files; the mixin calls this, and finds nothing left to write."""
        save_pretrained(self.dag, save_directory, pretrained_cfg=self.pretrained_cfg)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, pretrained_cfg: Mapping[str, Any] | None = None, **download: Any
    ) -> Self:
        """Load a graph; the mixin calls this with the entry of ``config.json``."""
        return cls(from_pretrained(model_id, **download), None if pretrained_cfg is None else dict(pretrained_cfg))
