"""The closed form against plain least squares."""

from __future__ import annotations

import pytest
import torch

from torch_dag_pruning.recovery.solving import Correction, Problem

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def problem(rows, lacks, held=0):
    found = Problem()
    found.add(rows[:, held:], lacks[:, held:])
    found.hold(rows[:, :held], lacks[:, :held], lacks[:, :held])
    return found


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 1e-1, 1.0, 100.0])
def test_where_nothing_lacks_nothing_changes(alpha):
    correction = problem(normal(2, 5, 8), torch.zeros(2, 5, 3, dtype=torch.float64)).least_squares(alpha)
    assert float(correction.weight.abs().max()) <= 1e-12
    assert float(correction.shift.abs().max()) <= 1e-12


def test_without_a_ridge_it_is_least_squares_with_a_constant():
    rows, lacks = normal(2, 50, 6) + 3, normal(2, 50, 4)
    correction = problem(rows, lacks).least_squares(0.0)
    wanted = torch.linalg.lstsq(torch.cat([rows, torch.ones(2, 50, 1).double()], 2), lacks).solution
    torch.testing.assert_close(correction.weight.mT, wanted[:, :-1])
    torch.testing.assert_close(correction.shift, wanted[:, -1])


def test_a_ridge_is_a_penalty_on_the_change():
    rows, lacks, alpha = normal(1, 40, 5), normal(1, 40, 3), 0.3
    correction = problem(rows, lacks).least_squares(alpha)
    ridge = alpha * rows.var(1, correction=0).mean()

    def loss(weight, shift):
        left = lacks - rows @ weight.mT - shift[:, None]
        return left.square().sum() / 40 + ridge * weight.square().sum()

    gradients = torch.func.grad(loss, (0, 1))(correction.weight, correction.shift)
    assert all(float(gradient.abs().max()) < 1e-12 for gradient in gradients)


def test_parts_add_up():
    rows, lacks = normal(1, 60, 5), normal(1, 60, 3)
    parts = Problem()
    for at in range(0, 60, 15):
        parts.add(rows[:, at : at + 15], lacks[:, at : at + 15])
    whole = problem(rows, lacks)
    torch.testing.assert_close(parts.least_squares(0.1).weight, whole.least_squares(0.1).weight)
    assert parts.count == whole.count == 60


def test_noise_is_not_fitted():
    rows, lacks = normal(1, 40, 30), normal(1, 40, 3) + 1.0  # as many rows as columns: least squares would fit noise
    found = problem(rows, lacks, held=10)
    best = found.best((1e-3,))
    assert best.kind == "mean"
    assert found.error(found.least_squares(1e-3)) > found.error(best)


def test_what_is_there_is_found():
    rows = normal(1, 400, 10)
    lacks = rows @ normal(1, 10, 3) + 0.1 * normal(1, 400, 3) + 5.0
    found = problem(rows, lacks, held=80)
    best = found.best((1e-3, 1e-1, 1.0))
    assert (best.kind, best.alpha) == ("least_squares", 1e-3)
    assert found.error(best) < 0.01 * found.error(found.mean()) < 0.01 * found.error(found.unchanged())


def test_a_correction_that_changes_nothing_leaves_what_lacks():
    rows, lacks = normal(1, 4, 2), normal(1, 4, 3)
    assert torch.equal(Correction("none", None, None, torch.zeros(1, 3).double()).lacking(rows, lacks), lacks)


def test_dead_columns_do_no_harm():
    correction = problem(torch.zeros(1, 20, 4).double(), normal(1, 20, 3)).least_squares(1e-3)
    assert float(correction.weight.abs().max()) == 0.0
