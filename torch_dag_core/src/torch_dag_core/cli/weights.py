"""Weights from files: read without executing anything in them, and refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from torch_dag_core.errors import CheckpointError, ModelReferenceError
from torch_dag_core.serialization.checkpoint_report import CheckpointReport
from torch_dag_core.serialization.checkpoints import load_checkpoint


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file, or a state dict saved by ``torch.save``, of which nothing but tensors is unpickled.

    Prefixes that wrappers such as DistributedDataParallel put before all names are removed.

    Raises:
        ModelReferenceError: the file cannot be read, or its tensors do not match those of the model.
    """
    try:
        load_checkpoint(model, path)
    except CheckpointError as error:
        message = str(error) if error.report is None else _refusal(path, error.report)
        raise ModelReferenceError(message) from error


def _refusal(path: Path, report: CheckpointReport) -> str:
    if report.wrong_shapes:
        return (
            f"the weights in {str(path)!r} do not fit the model: {report.sizes()}; "
            "name the model with the arguments that they were made with (--arg)"
        )
    hints = report.hints()
    return (
        f"the weights in {str(path)!r} are not the model's: {report.names()}; name the model "
        f"that they belong to, with its arguments (--arg){f'; {hints}' if hints else ''}"
    )
