"""Learned pruning in Lightning: ``pip install torch-dag-training[lightning]``."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    message = "torch_dag_training.with_lightning needs Lightning: pip install torch-dag-training[lightning]"
    raise ImportError(message) from error

from torch_dag_core.errors import SettingsError
from torch_dag_training.network import StatefulNetwork, require_one_process


class ChannelPruningCallback(Callback):  # type: ignore[misc]
    """Prunes a network that is part of a Lightning module.

        class Classifier(LightningModule):
            def __init__(self, pruning):
                super().__init__()
                self.network = StatefulNetwork(pruning)

            def training_step(self, batch, number):
                images, labels = batch
                return cross_entropy(self.network(images), labels) + self.network.pruning.loss()

        trainer = Trainer(max_steps=10_000, callbacks=[ChannelPruningCallback()])
        trainer.fit(module, loader)
        pruned = module.network.pruning.finalize()

    Optimizers, their schedules and checkpoints go on through the cut. On several processes, the cut must come at the
    last step (``freeze_at=1.0``).

    Attributes:
        name: The attribute of the Lightning module that is a `StatefulNetwork`.
    """

    def __init__(self, name: str = "network") -> None:
        """Prune the network of this name."""
        self.name = name
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the optimizers, whose state is restored by now.

        Raises:
            SettingsError: the network is none that can be pruned, or the cut would come in the middle of a training on
                several processes.
        """
        pruning = self._network(pl_module).pruning
        assert pruning is not None
        require_one_process(pruning, trainer.world_size, "Lightning")
        pruning.attach(*trainer.optimizers, scaler=getattr(trainer.precision_plugin, "scaler", None))
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Let the pruning make a step after each step of the optimizer."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self._network(pl_module).step()

    def _network(self, module: LightningModule) -> StatefulNetwork:
        network = getattr(module, self.name, None)
        if isinstance(network, StatefulNetwork) and network.pruning is not None:
            return network
        message = f"{type(module).__name__}.{self.name} must be a StatefulNetwork, got {type(network).__name__}"
        raise SettingsError(message)
