"""A graph with learnable masks: one mask per orbit, which can be updated at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.analysis.analysis import Analysis, Orbit
from torch_dag_pruning.analysis.expansion import shared_clone
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.masked_ops.form import MaskOf
from torch_dag_pruning.masked_ops.mask import Mask
from torch_dag_pruning.masking.laying import lay_learned_masks, mask_lookup
from torch_dag_pruning.plan.plan import Plan


class Masking:
    """An analysed graph with one differentiable mask per orbit.

    Every edge into a contraction over an orbit has a mask (M1), and ops whose statistics run over an orbit are replaced
    by their masked form (M3). With masks of zeros and ones, ``dag`` computes what the model without the masked slots
    computes (M2). All masks are 1 at first. A training loop looks like this:

        analysis = tdp.analyze(dag)
        masking = tdp.Masking(analysis)
        logits = {orbit.key: nn.Parameter(torch.full((orbit.n,), 3.0)) for orbit in analysis.orbits}
        optimizer = torch.optim.Adam([*masking.dag.parameters(), *logits.values()])
        for images, labels in batches:
            masking.update({key: logit.sigmoid() for key, logit in logits.items()})
            share = analysis.cost(masking.atom_counts()) / analysis.cost()
            loss = cross_entropy(masking.dag(images), labels) + (share - 0.5).relu()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        pruned = tdp.remove_channels(dag, masking.harden(), analysis=analysis)

    A slot whose mask is exactly 0 contributes nothing and receives no gradient.

    Attributes:
        analysis: The analysis of the graph.
        dag: The masked graph. It shares all tensors with the analysed graph, so training one trains the other, and a
            later removal slices the trained weights; analyse a clone to leave the original unchanged. Masks are not in
            its state dict, which has the keys of the analysed graph. Move the graph to its device before the analysis.
    """

    def __init__(self, analysis: Analysis) -> None:
        """Insert masks of 1.

        Raises:
            AnalysisError: the graph was edited after it was analysed.
        """
        analysis.require_current()
        self.analysis = analysis
        self.dag: DagModule = shared_clone(analysis.dag)
        device = next((tensor.device for tensor in self.dag.parameters()), torch.device("cpu"))
        self._orbits = {orbit.key: orbit for orbit in analysis.orbits}
        self._masks = {key: torch.ones(orbit.n, device=device) for key, orbit in self._orbits.items()}
        self._laid = lay_learned_masks(self.dag, analysis, self._mask_of())

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask of each orbit, by its key: ``n`` values in [0, 1], in float64 if given so, otherwise in float32."""
        return dict(self._masks)

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Replace the masks of the given orbits; gradients of later calls of ``dag`` flow into them.

        Args:
            masks: For each orbit key, a vector of ``n`` values in [0, 1]; bools count as 0 and 1.

        Raises:
            PlanError: an orbit is unknown, or its mask has the wrong shape or an integer dtype. Masks stay unchanged.
        """
        given = {key: self._checked(key, mask) for key, mask in masks.items()}
        self._masks.update(given)
        self._laid.update(self._mask_of())

    def edges(self) -> list[tuple[Mask, tuple[str, ...]]]:
        """Return the mask on each edge into a contraction, with the keys of the orbits that it covers."""
        keys = {orbit.atom: key for key, orbit in self._orbits.items()}
        return [(op, tuple(keys[atom] for atom in inside if atom in keys)) for op, inside in self._laid.edge_atoms()]

    def counts(self) -> dict[str, Tensor]:
        """Return the sum of the mask of each orbit, by its key; differentiable."""
        return {key: mask.sum() for key, mask in self._masks.items()}

    def atom_counts(self) -> dict[int, Tensor]:
        """Return the sum of the mask of each orbit, by the id of its atom, for `Analysis.cost`; differentiable."""
        return {self._orbits[key].atom.id: count for key, count in self.counts().items()}

    @torch.no_grad()
    def harden(self, threshold: float = 0.5) -> Plan:
        """Return the plan that keeps the slots whose mask is above ``threshold``.

        If these are fewer than the minimum of the orbit, it keeps that many slots with the largest masks. An orbit with
        minimum 0 may become empty.

        Raises:
            PlanError: a mask holds NaN.
        """
        return Plan.keeping(
            self.analysis, {key: _above(mask, threshold, self._orbits[key]) for key, mask in self._masks.items()}
        )

    def _checked(self, key: str, mask: Any) -> Tensor:
        orbit = self._orbits.get(key)
        if orbit is None:
            message = f"the graph has no orbit {key!r}; list(masking.masks) names them"
            raise PlanError(message)
        is_fitting = isinstance(mask, Tensor) and mask.shape == (orbit.n,)
        if not is_fitting or not (mask.is_floating_point() or mask.dtype == torch.bool):
            got = f"{mask.dtype} of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
            message = f"the mask of orbit {key!r} must be a tensor of {orbit.n} floats or bools, got {got}"
            raise PlanError(message)
        # Half precision cannot represent all counts of slots exactly, so masks are summed in at least float32.
        dtype = mask.dtype if mask.dtype == torch.float64 else torch.float32
        checked: Tensor = mask.to(self._masks[key].device, dtype)
        return checked

    def _mask_of(self) -> MaskOf:
        masks = {self._orbits[key].atom.id: mask for key, mask in self._masks.items()}
        return mask_lookup(self.analysis.solver, masks)


def _above(mask: Tensor, threshold: float, orbit: Orbit) -> list[int]:
    if bool(mask.isnan().any()):
        message = f"the mask of orbit {orbit.key!r} holds NaN; its learning went wrong"
        raise PlanError(message)
    count = max(int((mask > threshold).sum()), orbit.minimum)
    kept: list[int] = mask.sort(descending=True, stable=True).indices[:count].tolist()
    return kept
