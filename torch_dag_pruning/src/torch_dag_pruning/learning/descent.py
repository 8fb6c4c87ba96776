"""What is learned about channels, trained by an optimizer of its own beside that of the weights."""

from __future__ import annotations

import torch

from torch_dag_pruning.learning.choosing import Choosing
from torch_dag_pruning.learning.config import LearnedChannelConfig
from torch_dag_pruning.processes import averaged


class Descent:
    """Steps of Adam on the gates or widths of a choice.

    Attributes:
        optimizer: None where the optimizer of the weights has them too, and where nothing may be pruned.
    """

    def __init__(self, choosing: Choosing, config: LearnedChannelConfig) -> None:
        self._module = choosing.module
        has_own = config.own_optimizer and len(choosing.slots) > 0
        self.optimizer = torch.optim.Adam(self._module.parameters(), config.rate) if has_own else None

    def step(self, loss_scale: float) -> None:
        """Follow the gradients, averaged over all processes; a step with infinite ones is left out.

        Args:
            loss_scale: What the loss was multiplied by.
        """
        if self.optimizer is None:
            return
        parameters = [parameter for parameter in self._module.parameters() if parameter.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad = averaged(parameter.grad) / loss_scale
        if all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None):
            self.optimizer.step()
        self.optimizer.zero_grad()
