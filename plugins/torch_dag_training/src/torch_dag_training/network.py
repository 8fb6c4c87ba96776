"""The network of a pruning as one module that stays the same object when the network is cut."""

from __future__ import annotations

import copy
import io
from typing import Any, Self

import torch
from torch import Tensor, nn

from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning import LearnedChannelPruning


class PrunableNetwork(nn.Module):
    """Calls the network of a pruning, before and after the cut.

    Frameworks keep references to the module that they train. They get this one, and `step` replaces what is in it.

    Attributes:
        pruning: What learns the channels; None in a copy, whose network is only a copy of weights.
        network: The masked graph, after the cut the cut one.
    """

    network: DagModule
    accepts_loss_kwargs = False
    """Tells the Trainer of transformers not to pass arguments of losses to the network."""

    def __init__(self, pruning: LearnedChannelPruning) -> None:
        """Take over the network of a pruning, in training mode."""
        super().__init__()
        self.pruning: LearnedChannelPruning | None = pruning
        self.network = pruning.prepare().train()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Call the network."""
        return self.network(*inputs, **named)

    def step(self) -> bool:
        """Call `LearnedChannelPruning.step`, and return whether the network was cut."""
        assert self.pruning is not None
        was_cut = self.pruning.step()
        if was_cut:
            self.network = self.pruning.network
        return was_cut

    def load_pruning(self, state: dict[str, Any]) -> None:
        """Go on where a pruning of the same settings was, whose network may have been cut.

        Raises:
            SettingsError: this pruning has made steps of its own, and the other one is elsewhere.
        """
        assert self.pruning is not None
        mine = self.pruning.steps_done, self.pruning.cut is not None
        if mine[0] and mine != (state["steps_done"], state["is_cut"]):
            message = f"the checkpoint is of step {state['steps_done']}, this pruning at {mine[0]}; start a new one"
            raise SettingsError(message)
        if not mine[0]:
            self.pruning.load_state_dict(state)
            self.network = self.pruning.network

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__new__(type(self))
        nn.Module.__init__(twin)
        twin.pruning, twin.network = None, copy.deepcopy(self.network, memo)
        return twin.train(self.training)


class StatefulNetwork(PrunableNetwork):
    """A network whose state dict holds the state of the pruning too, as one tensor of bytes.

    So the frameworks' own checkpoints hold everything, and loading one cuts the network first if it was cut there.
    """

    def get_extra_state(self) -> Tensor:
        """Return the state of the pruning in the format of `torch.save`, as a tensor of bytes."""
        buffer = io.BytesIO()
        torch.save(None if self.pruning is None else self.pruning.state_dict(), buffer)
        return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Do nothing: the state was loaded before the tensors, whose shapes depend on it."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}_extra_state")
        if stored is not None and self.pruning is not None:
            buffer = io.BytesIO(bytes(stored.cpu().numpy()))
            self.load_pruning(torch.load(buffer, weights_only=True))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def require_one_process(pruning: LearnedChannelPruning, processes: int, framework: str) -> None:
    """Refuse a cut in the middle of a training whose wrappers around the network cannot be replaced.

    Raises:
        SettingsError: there are several processes, and the cut is not at the last step.
    """
    config = pruning.config
    if processes > 1 and config.freeze_step < config.training_steps:
        message = (
            f"{framework} trains on {processes} processes and keeps its wrapper around the network, so the cut must "
            f"come at the last step; pass freeze_at=1.0 instead of {config.frozen_share}"
        )
        raise SettingsError(message)
