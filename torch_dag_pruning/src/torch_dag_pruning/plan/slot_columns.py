"""Which columns of a consumer's matrix belong to each slot of an orbit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_dag_pruning.axes import atoms, membership
from torch_dag_pruning.statistics.consumers import Consumer, consumers
from torch_dag_pruning.statistics.moments import Moments
from torch_dag_pruning.statistics.statistics import Statistics

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit


@dataclass(frozen=True)
class Reading:
    """One group of one consumer that reads slots of an orbit.

    Attributes:
        slots: The slots that it reads, of shape (slots,).
        columns: The columns of each of them, of shape (slots, columns of a slot).
        weight: The matrix, of shape (outs, columns), in double precision.
        covariance: Of the columns.
        second: The mean square of each column.
    """

    slots: Tensor
    columns: Tensor
    weight: Tensor
    covariance: Tensor
    second: Tensor

    @property
    def spread(self) -> float:
        """The total variance of the results, which errors are relative to."""
        return float(((self.weight @ self.covariance) * self.weight).sum())


def readings(analysis: Analysis, statistics: Statistics, orbit: Orbit) -> list[Reading]:
    """Return everything that reads slots of an orbit through learned weights.

    Raises:
        CalibrationError: the statistics are of another graph.
    """
    statistics.require(analysis)
    found = consumers(analysis).values()
    return [
        reading
        for consumer in found
        if orbit.atom in atoms(consumer.axis)
        for reading in _of_consumer(consumer, statistics.moments[consumer.name], orbit)
    ]


def _of_consumer(consumer: Consumer, moments: Moments, orbit: Orbit) -> Iterator[Reading]:
    weights, each = _weights(consumer)
    groups = weights.shape[0]
    channels = consumer.axis.n // groups
    members = membership(consumer.axis, orbit.atom).reshape(groups, channels, orbit.n) != 0
    covariance, second = moments.covariance.cpu(), moments.second.cpu()
    for group in range(groups):
        slots = members[group].any(0).nonzero().flatten()
        if slots.numel():
            places = members[group].T[slots].nonzero()[:, 1].reshape(slots.numel(), -1)
            columns = (places[:, :, None] * each + torch.arange(each)).flatten(1)
            yield Reading(slots, columns, weights[group], covariance[group], second[group])


def _weights(consumer: Consumer) -> tuple[Tensor, int]:
    """Return the matrices over the columns that moments are taken of, and how many columns a channel has."""
    by_channel = consumer.by_channel.cpu()
    groups, outs, channels, taps = by_channel.shape
    if consumer.shares_taps:
        return by_channel.transpose(2, 3).reshape(groups, outs * taps, channels), 1
    return by_channel.reshape(groups, outs, channels * taps), taps
