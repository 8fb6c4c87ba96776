"""The base that channel pruning, block pruning and low-rank compression share."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.algorithms.settings import LearnedCompressionConfig
from torch_dag_core.errors import SettingsError


class Halving(CompressionAlgorithm):
    """Claims that half of 64,000 FLOPs can go."""

    name = "halving"
    config_type = LearnedCompressionConfig
    prepared_model = None

    def analyze(self):
        return CompressionReport(algorithm=self.name, flops=64_000, reachable_flops=32_000, candidates=())

    def prepare(self):
        self.prepared_model = self.model.clone()
        return self.prepared_model

    def losses(self, global_step):
        return Losses(torch.tensor(1.0), {"flops": torch.tensor(float(global_step))})

    def finalize(self):
        return self.prepared_model


def test_the_signature_spells_out_every_setting():
    parameters = inspect.signature(Halving).parameters
    empty = inspect.Parameter.empty
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "model": empty, "input_shape": empty, "keep_flops": empty, "training_steps": empty,
        "entropy_loss_weight": 1.0, "flops_loss_weight": 10.0, "anneal_losses": True,
        "ignore_classes": (), "cost": "flops", "reference_flops": None,
    }  # fmt: skip
    positional = [name for name, parameter in parameters.items() if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
    assert positional == list(parameters)[:4]


def test_the_signature_is_that_of_the_config(dag):
    for name in ("rate", "model"):
        with pytest.raises(TypeError, match=name):
            Halving(dag, (3, 4, 4), 0.5, 3, **{name: 1})


def test_costs_are_normalized_by_pixels(dag):
    halving = Halving(dag, (3, 4, 8), 0.75, 100)
    assert halving.initial_normalized_flops == 2.0
    assert halving.target_normalized_flops == 1.5
    assert halving.removable_share == 0.5
    assert halving.prepared_model is None


def test_the_target_counts_from_the_reference(dag):
    assert Halving(dag, (3, 1, 1), 0.25, 100, reference_flops=128_000).target_normalized_flops == 32.0


@pytest.mark.parametrize(
    ("reference", "share", "least"), [(None, 0.3, 0.5), (128_000, 0.1, 0.25), (None, 0.49999, 0.5)]
)
def test_an_unreachable_target_is_refused_with_the_least(dag, reference, share, least):
    with pytest.raises(SettingsError, match=rf"halving cannot get this graph below 32,000; ask for at least {least}$"):
        Halving(dag, (3, 4, 4), share, 100, reference_flops=reference)
    Halving(dag, (3, 4, 4), least, 100, reference_flops=reference)


def test_the_four_steps_and_two_that_may_be_left_out(dag):
    halving = Halving(dag, (3, 4, 4), 0.5, 100)
    prepared = halving.prepare()
    assert prepared is halving.prepared_model
    assert halving.losses(7).total() == 7
    assert halving.calibrate([]) is None
    assert halving.conclusion() == ""
    assert halving.finalize() is prepared


def test_a_config_and_arguments_give_the_same(dag):
    config = LearnedCompressionConfig(keep_flops=0.5, training_steps=3, cost="params", ignore_classes=(nn.Linear,))
    assert Halving.from_config(dag, config, (3, 4, 4)).config == config
    given = Halving(dag, (3, 4, 4), 0.5, 3, cost="params", ignore_classes=iter([nn.Linear]))
    assert given.config == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_flops": 0}, "keep_flops is the share of FLOPs that stays, above 0 and at most 1; got 0"),
        ({"keep_flops": 1.01}, "got 1.01"),
        ({"keep_flops": float("nan")}, "got nan"),
        ({"keep_flops": True}, "got True"),
        ({"keep_flops": "0.5"}, "got '0.5'"),
        ({"training_steps": 0}, "training_steps must be an integer of at least 1, got 0"),
        ({"training_steps": 1.5}, "training_steps must be an integer of at least 1, got 1.5"),
        ({"entropy_loss_weight": -1.0}, "entropy_loss_weight must be a finite number of at least 0, got -1.0"),
        ({"flops_loss_weight": float("inf")}, "flops_loss_weight must be a finite number of at least 0, got inf"),
        ({"anneal_losses": 1}, "anneal_losses must be True or False, got 1"),
        ({"cost": "joules"}, "cost must be one of 'flops', 'params', 'latency', got 'joules'"),
        ({"reference_flops": 0}, "reference_flops must be a finite number above 0 or None, got 0"),
        ({"ignore_classes": (int,)}, "must hold subclasses of nn.Module, got <class 'int'>"),
        ({"ignore_classes": nn.Linear(1, 1)}, "must hold subclasses of nn.Module, got Linear"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(SettingsError) as caught:
        LearnedCompressionConfig(**{"keep_flops": 0.5, "training_steps": 10, **settings})
    assert message in str(caught.value)


def test_one_class_may_stand_for_a_tuple():
    config = LearnedCompressionConfig(
        keep_flops=1,
        training_steps=1,
        ignore_classes=nn.Conv2d,  # type: ignore[arg-type]
    )
    assert config.ignore_classes == (nn.Conv2d,)
