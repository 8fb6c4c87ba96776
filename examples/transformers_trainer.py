"""Learned pruning with the Trainer of Hugging Face."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from small_network import data, pruning
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

import torch_dag_core as td
from torch_dag_training.with_transformers import PruningTrainer

STEPS = 8


def loss(outputs, labels, num_items_in_batch=None):
    """Return the loss of the task."""
    return cross_entropy(outputs, labels)


def trainer(folder: str, **options) -> PruningTrainer:
    """Return a trainer whose data has the name of the graph's input."""
    learning = pruning(STEPS)
    (name,) = (vertex.name for vertex in learning.model.input_vertices)
    samples = [{name: image, "labels": label} for image, label in data()]
    arguments = TrainingArguments(
        folder, max_steps=STEPS, report_to=[], disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
        learning_rate=1e-2, **{"save_strategy": "no", **options},
    )  # fmt: skip
    return PruningTrainer(learning, args=arguments, train_dataset=samples, compute_loss_func=loss)


def result() -> td.DagModule:
    """Return the pruned graph."""
    with TemporaryDirectory() as folder:
        training = trainer(folder)
        training.train()
    return training.pruning.finalize()


if __name__ == "__main__":
    print(result())
