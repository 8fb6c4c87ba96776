"""Learned pruning with accelerate: ``pip install torch-dag-training[accelerate]``."""

from __future__ import annotations

from typing import Any

try:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType
except ImportError as error:
    message = "torch_dag_training.with_accelerate needs accelerate: pip install torch-dag-training[accelerate]"
    raise ImportError(message) from error

from torch import Tensor, nn
from torch.optim import Optimizer

from torch_dag_core.errors import SettingsError
from torch_dag_pruning import LearnedChannelPruning
from torch_dag_training.network import StatefulNetwork

_KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class AcceleratedPruning:
    """A pruning, its network and its optimizer, prepared by an ``Accelerator``.

        pruning = AcceleratedPruning(accelerator, LearnedChannelPruning(dag, shape, 0.5, 10_000))
        optimizer = pruning.prepare(torch.optim.AdamW(pruning.parameters(), 1e-3))
        for images, labels in accelerator.prepare(loader):
            with accelerator.accumulate(pruning.model):
                loss = cross_entropy(pruning.model(images), labels) + pruning.loss()
                accelerator.backward(loss)
                optimizer.step()
                pruning.step()
                optimizer.zero_grad()

    ``accelerator.save_state`` and ``load_state`` save and restore all of it.

    Attributes:
        accelerator: The accelerator.
        network: The network, without wrappers.
        model: What ``accelerator.prepare`` made of it; another object after the cut if there are several processes.
    """

    def __init__(self, accelerator: Accelerator, pruning: LearnedChannelPruning) -> None:
        """Wrap the network of a pruning.

        Raises:
            SettingsError: the accelerator shards parameters or uses an engine of its own.
        """
        if accelerator.distributed_type not in _KNOWN:
            known = ", ".join(str(each.value) for each in _KNOWN)
            message = f"a training of the type {accelerator.distributed_type} cannot be pruned, only {known}"
            raise SettingsError(message)
        self.accelerator = accelerator
        self.network = StatefulNetwork(pruning)
        self.model: nn.Module = self.network

    def parameters(self) -> Any:
        """Iterate over the parameters to train, for the optimizer."""
        return self.network.parameters()

    def prepare(self, optimizer: Optimizer) -> Optimizer:
        """Prepare network and optimizer, and return the prepared optimizer."""
        self.model, prepared = self.accelerator.prepare(self.model, optimizer)
        assert self.network.pruning is not None
        self.network.pruning.attach(optimizer, scaler=self.accelerator.scaler)
        return prepared  # type: ignore[no-any-return]

    def loss(self) -> Tensor:
        """Return what to add to the loss."""
        assert self.network.pruning is not None
        return self.network.pruning.loss()

    def step(self) -> bool:
        """Let the pruning make a step if the optimizer made one, and return whether the network was cut."""
        if not self.accelerator.sync_gradients or not self.network.step():
            return False
        if self.model is not self.network:
            self._wrap_again()
        return True

    def _wrap_again(self) -> None:
        """Let the accelerator wrap the cut network, in place of its wrapper around the masked one."""
        models = self.accelerator._models
        models[:] = [each for each in models if each is not self.model]
        self.model = self.accelerator.prepare_model(self.network)
