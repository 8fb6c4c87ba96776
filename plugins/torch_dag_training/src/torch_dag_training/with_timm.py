"""Learned pruning as a training task of timm: ``pip install torch-dag-training[timm]``."""

from __future__ import annotations

from typing import Any

try:
    from timm.task import TrainingTask
    from timm.utils import unwrap_model
except ImportError as error:
    message = "torch_dag_training.with_timm needs timm 1.0.31 or newer: pip install torch-dag-training[timm]"
    raise ImportError(message) from error

from torch import Tensor, nn
from torch.optim import Optimizer

from torch_dag_core.errors import SettingsError
from torch_dag_training.network import PrunableNetwork


def describe_(network: nn.Module, source: nn.Module) -> None:
    """Give a network what tasks with a teacher ask of a model of timm: its classes, colour planes and normalisation.

    Args:
        network: Gets the attributes ``num_classes``, ``in_chans`` and ``pretrained_cfg``.
        source: The model of timm that the graph was made of.
    """
    for name in ("num_classes", "in_chans", "pretrained_cfg"):
        setattr(network, name, getattr(source, name))


class PruningTask(TrainingTask):  # type: ignore[misc]
    """A task of timm around another task, whose model is pruned while it is trained.

        network = PrunableNetwork(pruning)
        describe_(network, model)              # for tasks with a teacher
        task = PruningTask(LogitDistillationTask(network, teacher_model, device=device), network)
        optimizer = create_optimizer_v2(task.get_trainable_module(), opt="adamw", lr=1e-3)
        task.attach(optimizer)
        for images, labels in loader:
            task(images, labels)["loss"].backward()
            optimizer.step()
            task.step()
            optimizer.zero_grad()
            task.update_ema()

    Whatever the inner task does (distillation, DDP, compilation, averaged weights) goes on with the cut network; its
    checkpoints hold the state of the pruning.

    Attributes:
        inner: The task that computes the loss.
        network: The network that is pruned: the model of the inner task.
    """

    def __init__(self, inner: TrainingTask, network: PrunableNetwork) -> None:
        """Wrap a task.

        Raises:
            SettingsError: the network is not the model of the task, or is pruned by nothing.
        """
        super().__init__(device=inner.device, dtype=inner.dtype, verbose=inner.verbose)
        if inner.get_trainable_module() is not network or network.pruning is None:
            message = f"the model of {type(inner).__name__} must be the PrunableNetwork that is passed, unwrapped"
            raise SettingsError(message)
        self.inner, self._pruning = inner, network.pruning
        self._network = (network,)  # not registered a second time: the inner task holds it, maybe in a wrapper
        self._ddp: dict[str, Any] | None = None

    @property
    def network(self) -> PrunableNetwork:
        """The network that is pruned, without wrappers."""
        (network,) = self._network
        assert isinstance(network, PrunableNetwork)
        return network

    def attach(self, *optimizers: Optimizer, **options: Any) -> None:
        """Attach optimizers; see `LearnedChannelPruning.attach`."""
        self._pruning.attach(*optimizers, **options)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:  # noqa: A002
        """Return what the inner task returns, with the loss of the pruning added, and alone as ``pruning_loss``."""
        result = dict(self.inner(input, target))
        extra = self._pruning.loss()
        return {**result, "loss": result["loss"] + extra, "pruning_loss": extra}

    def step(self) -> bool:
        """Let the pruning make a step after that of the optimizer, and return whether the network was cut."""
        masked = self.network.network
        if not self.network.step():
            return False
        average = self.get_trainable_module(ema=True)
        if average is not None:
            copy = unwrap_model(average)
            assert self._pruning.cut is not None
            carried = self._pruning.cut.carry_average(copy.network, masked, self.network.network)
            copy.network = carried.requires_grad_(requires_grad=False).eval()
        if self._ddp is not None:
            self.inner.trainable_module = self.inner.trainable_module.module
            self.inner.prepare_distributed(**self._ddp)
        return True

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> PruningTask:
        """Let the inner task wrap its model, now and after the cut."""
        self._ddp = {"device_ids": device_ids, **ddp_kwargs}
        self.inner.prepare_distributed(**self._ddp)
        return self

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """Return the state of the inner task, and of the pruning unless ``ema`` is set."""
        state = dict(self.inner.get_task_state(module, ema))
        return state if ema else {**state, "pruning": self._pruning.state_dict()}

    def load_checkpoint_state(
        self, state_dict: dict[str, Any], task_state: dict[str, Any] | None = None, ema: bool = False,  # noqa: FBT001, FBT002
        strict: bool = True,  # noqa: FBT001, FBT002
    ) -> None:  # fmt: skip
        """Load the pruning first, which cuts the network if it was cut, then weights and the inner task's state."""
        rest = dict(task_state or {})
        if not ema and "pruning" in rest:
            self.network.load_pruning(rest.pop("pruning"))
        self.inner.load_checkpoint_state(state_dict, rest, ema=ema, strict=strict)


def _delegated(name: str) -> Any:
    def call(self: PruningTask, *arguments: Any, **options: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **options)

    call.__name__, call.__doc__ = name, f"See ``TrainingTask.{name}``."
    return call


for _name in (
    "compile", "compile_ema", "create_evaluator", "get_clip_parameters", "get_eval_model", "get_trainable_module",
    "has_ema", "no_sync", "setup_ema", "update_ema",
):  # fmt: skip
    setattr(PruningTask, _name, _delegated(_name))
