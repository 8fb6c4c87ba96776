"""Knowledge distillation between two graphs: their outputs, and the values of vertices of the same name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torch_dag_core.errors import GraphError, SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.cut import Cut


class Distillation:
    """Measures how far a graph is from the one that it was made from.

        distillation = tdp.Distillation(dag, temperature=2.0, features={"layer2": 0.5, "layer3": 0.5})
        for images, labels in loader:
            outputs, distance = distillation(pruning.network, images, cut=pruning.cut)
            loss = cross_entropy(outputs, labels) + distance + pruning.loss()

    The distance is a weighted sum of

    - the Kullback-Leibler divergence of the softened class probabilities, ``T^2 KL(teacher || student)`` (Hinton et
      al., arXiv:1503.02531), for outputs that are one tensor of logits, classes last;
    - for each feature, the noise-to-signal ratio ``||s - t||^2 / ||t - mean(t)||^2``, with the mean over all elements
      that do not belong to one channel.

    Where channels were removed, the teacher's values at the channels that stay are taken.

    Attributes:
        teacher: A copy of the graph in evaluation mode.
        logits: Weight of the divergence of the outputs; 0 leaves them out, whatever they are.
        temperature: What logits are divided by.
        features: Weights of vertices, by name.
    """

    def __init__(
        self, teacher: DagModule, *, logits: float = 1.0, temperature: float = 1.0,
        features: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """Copy the teacher.

        Raises:
            SettingsError: a weight is negative, or the temperature is not above 0.
            GraphError: a feature is no vertex of the teacher, or shares its module with other vertices.
        """
        require_graphs("Distillation", teacher)
        self.logits, self.temperature, self.features = logits, temperature, dict(features or {})
        for name, weight in {"logits": logits, **self.features}.items():
            if weight < 0:
                message = f"the weight of {name!r} must be at least 0, got {weight}"
                raise SettingsError(message)
        if temperature <= 0:
            message = f"temperature must be above 0, got {temperature}"
            raise SettingsError(message)
        self.teacher = teacher.flatten().eval().requires_grad_(requires_grad=False)
        for name in self.features:
            _module(self.teacher, name)

    def __call__(self, student: nn.Module, *inputs: Any, cut: Cut | None = None) -> tuple[Any, Tensor]:
        """Call both graphs, and return the outputs of the student and the distance.

        Args:
            student: A graph, or a module around one such as ``DistributedDataParallel``.
            *inputs: What both are called with.
            cut: The cut that made the student, if it lacks channels of ``features``.

        Raises:
            GraphError: the student lacks a feature, or its shape is another one and ``cut`` does not explain it.
        """
        with torch.no_grad(), _watched(self.teacher, self.features) as wanted:
            targets = self.teacher(*inputs)
        with _watched(_graph_in(student), self.features) as given:
            outputs = student(*inputs)
        terms = [
            weight * noise_to_signal(given[name], _taken(name, wanted[name], given[name], cut))
            for name, weight in self.features.items()
        ]
        if self.logits:
            terms.append(self.logits * softened_divergence(outputs, targets, self.temperature))
        return outputs, torch.stack(terms).sum() if terms else torch.zeros(())


def softened_divergence(student: Any, teacher: Any, temperature: float) -> Tensor:
    """Return ``T^2 KL(teacher || student)`` of the class probabilities, softened and averaged over all but classes.

    Raises:
        SettingsError: the outputs are not one tensor each.
    """
    if not isinstance(student, Tensor) or not isinstance(teacher, Tensor):
        message = f"the graph returns {type(student).__name__}, not logits; pass logits=0.0 and name features instead"
        raise SettingsError(message)
    given = functional.log_softmax(student.float() / temperature, -1)
    wanted = functional.log_softmax(teacher.float() / temperature, -1)
    return temperature**2 * (wanted.exp() * (wanted - given)).sum(-1).mean()


def noise_to_signal(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance relative to the squared deviations of each channel of the teacher from its mean.

    Channels are the dimension 1 of tensors of rank 4 and more, otherwise the last dimension.
    """
    wide, wanted = student.float(), teacher.float()
    channel = 1 if wanted.dim() > 3 else wanted.dim() - 1
    others = [dim for dim in range(wanted.dim()) if dim != channel]
    signal = (wanted - wanted.mean(others, keepdim=True)).square().sum()
    return (wide - wanted).square().sum() / signal.clamp_min(torch.finfo(torch.float32).tiny)


def _taken(name: str, wanted: Tensor, given: Tensor, cut: Cut | None) -> Tensor:
    """Return the part of a teacher's value that the student has."""
    if wanted.shape == given.shape:
        return wanted
    part = wanted if cut is None else cut.kept.take(wanted, cut.axes.outputs(name)[0])
    if part.shape != given.shape:
        message = (
            f"vertex {name!r} gives {tuple(given.shape)} in the student and {tuple(part.shape)} in the teacher; pass "
            "cut=..., the cut that made the student"
        )
        raise GraphError(message)
    return part


def _graph_in(student: nn.Module) -> DagModule:
    for module in student.modules():
        if isinstance(module, DagModule):
            return module
    message = f"there is no graph in {type(student).__name__}; pass a DagModule, or a module around one"
    raise GraphError(message)


def _module(dag: DagModule, name: str) -> nn.Module:
    """Return the module of a vertex, which must be the only one that calls it."""
    vertex = dag.get_vertex_by_name(name)
    callers = [
        each.name for each in dag.inner_vertices if isinstance(vertex, InnerVertex) and each.module is vertex.module
    ]
    if not isinstance(vertex, InnerVertex) or len(callers) > 1:
        kind = f"shares its module with {callers}" if callers else "is an input"
        message = f"vertex {name!r} cannot be a feature, because it {kind}; name another one"
        raise GraphError(message)
    return vertex.module


@contextmanager
def _watched(dag: DagModule, names: Sequence[str] | Mapping[str, float]) -> Iterator[dict[str, Tensor]]:
    """Collect the values of vertices by name while the graph is called."""
    found: dict[str, Tensor] = {}
    handles = [_module(dag, name).register_forward_hook(_keeper(found, name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keeper(found: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, operands: Any, value: Tensor) -> None:
        del module, operands
        found[name] = value

    return keep
