"""Learned pruning with a callback of Lightning."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from small_network import loader, pruning
from torch.nn.functional import cross_entropy

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_training import StatefulNetwork
from torch_dag_training.with_lightning import ChannelPruningCallback

STEPS = 8


class Classifier(LightningModule):
    """A Lightning module around the network of a pruning."""

    def __init__(self, learning: tdp.LearnedChannelPruning) -> None:
        super().__init__()
        self.network = StatefulNetwork(learning)

    def training_step(self, batch, number):
        images, labels = batch
        return cross_entropy(self.network(images), labels) + self.network.pruning.loss()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def main(steps: int = STEPS, checkpoint: str | None = None, samples: int = 64) -> tuple[Trainer, Classifier]:
    """Train, from a checkpoint if there is one."""
    module = Classifier(pruning(STEPS))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=steps, callbacks=[ChannelPruningCallback()], enable_model_summary=False, **quiet)
    trainer.fit(module, loader(samples), ckpt_path=checkpoint)
    return trainer, module


def result() -> td.DagModule:
    """Return the pruned graph."""
    _, module = main()
    return module.network.pruning.finalize()


if __name__ == "__main__":
    print(result())
