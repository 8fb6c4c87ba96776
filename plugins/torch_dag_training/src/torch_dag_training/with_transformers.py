"""Learned pruning in the Trainer of Hugging Face: ``pip install torch-dag-training[transformers]``."""

from __future__ import annotations

from typing import Any

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    message = "torch_dag_training.with_transformers needs transformers: pip install torch-dag-training[transformers]"
    raise ImportError(message) from error

from torch_dag_pruning import LearnedChannelPruning
from torch_dag_training.network import StatefulNetwork, require_one_process


class PruningCallback(TrainerCallback):  # type: ignore[misc]
    """Lets a pruning make its steps; `PruningTrainerMixin` adds it.

    Attributes:
        network: The model of the trainer.
    """

    def __init__(self, network: StatefulNetwork) -> None:
        """Prune this network."""
        self.network = network

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach the optimizer, which exists by now."""
        del state, control
        pruning = self.network.pruning
        assert pruning is not None
        require_one_process(pruning, args.world_size, "the Trainer")
        optimizer = given["optimizer"]
        pruning.attach(getattr(optimizer, "optimizer", optimizer), scaler=getattr(optimizer, "scaler", None))

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Let the pruning make a step."""
        self.network.step()


class PruningTrainerMixin:
    """Adds a pruning to a subclass of ``Trainer``, which must be the next base class.

        class MyPruningTrainer(PruningTrainerMixin, MyTrainer): ...

    The loss gets the loss of the pruning added. On several processes, the cut must come at the last step
    (``freeze_at=1.0``).

    Attributes:
        pruning: The pruning, whose network is the model of the trainer.
    """

    def __init__(self, pruning: LearnedChannelPruning, **options: Any) -> None:
        """Make a trainer of the network of a pruning.

        Args:
            pruning: The pruning, before its first step.
            **options: The arguments of the trainer but ``model``. ``compute_loss_func`` is needed unless the graph
                returns its loss.
        """
        self.pruning = pruning
        network = StatefulNetwork(pruning)
        super().__init__(model=network, **options)  # type: ignore[call-arg]
        given = getattr(self, "optimizer", None)
        if given is not None:
            pruning.attach(given)
        self.add_callback(PruningCallback(network))  # type: ignore[attr-defined]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any  # noqa: FBT001, FBT002
    ) -> Any:  # fmt: skip
        """Return the loss of the trainer, in training with that of the pruning."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)  # type: ignore[misc]
        if model.training:
            loss = loss + self.pruning.loss() / self._parts()
        return (loss, outputs) if return_outputs else loss

    def _parts(self) -> int:
        """Return by what the loss of a batch is to be divided here, because the trainer will not do it later."""
        is_divided = getattr(self, "loss_is_scaled_for_ga", None)
        if is_divided is None:
            is_divided = getattr(self, "compute_loss_func", None) is not None
        return int(getattr(self, "current_gradient_accumulation_steps", 1)) if is_divided else 1


class PruningTrainer(PruningTrainerMixin, Trainer):  # type: ignore[misc]
    """A ``Trainer`` that prunes, with the arguments of `PruningTrainerMixin`.

        trainer = PruningTrainer(pruning, args=arguments, train_dataset=data, compute_loss_func=loss)
        trainer.train()
        pruned = pruning.finalize()

    ``trainer.save_model`` saves the network with the state of the pruning; save the graph with ``pruned.save``.
    """
