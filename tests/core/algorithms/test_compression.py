"""The base that channel pruning, block pruning and low-rank compression share."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionPlugin
from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.algorithms.settings import CompressionConfig
from torch_dag_core.errors import SettingsError


class Halving(CompressionPlugin):
    """Claims that half of 64,000 FLOPs can go."""

    name = "halving"

    def analyze(self):
        return CompressionReport(algorithm=self.name, flops=64_000, reachable_flops=32_000, candidates=())

    def prepare_for_pruning(self):
        self.prepared_model = self.model.clone()
        return self.prepared_model

    def compute_current_proportion_and_pruning_losses(self, global_step):
        return Losses(*torch.tensor([1.0, global_step, 0.0, 0.0]))

    def finalize(self):
        return self.prepared_model


def test_the_signature_spells_out_every_setting():
    parameters = inspect.signature(Halving).parameters
    empty = inspect.Parameter.empty
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "model": empty, "input_shape_without_batch": empty, "pruning_proportion": empty, "num_training_steps": empty,
        "entropy_loss_weight": 1.0, "flops_loss_weight": 10.0, "anneal_losses": True,
        "custom_unprunable_module_classes": (), "cost": "flops", "reference_flops": None,
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
    assert halving.prunable_proportion == 0.5
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


def test_the_common_steps_are_the_named_ones(dag):
    halving = Halving(dag, (3, 4, 4), 0.5, 100)
    prepared = halving.prepare()
    assert prepared is halving.prepared_model
    assert halving.losses(7) == halving.compute_current_proportion_and_pruning_losses(7)
    assert halving.calibrate([]) is None
    assert halving.finalize() is prepared


def test_a_config_and_arguments_give_the_same(dag):
    config = CompressionConfig(
        pruning_proportion=0.5, num_training_steps=3, cost="params", custom_unprunable_module_classes=(nn.Linear,)
    )
    assert Halving.from_config(dag, config, (3, 4, 4)).config == config
    given = Halving(dag, (3, 4, 4), 0.5, 3, cost="params", custom_unprunable_module_classes=iter([nn.Linear]))
    assert given.config == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pruning_proportion": 0}, "pruning_proportion is the share of cost that stays, above 0 and at most 1; got 0"),
        ({"pruning_proportion": 1.01}, "got 1.01"),
        ({"pruning_proportion": float("nan")}, "got nan"),
        ({"pruning_proportion": True}, "got True"),
        ({"pruning_proportion": "0.5"}, "got '0.5'"),
        ({"num_training_steps": 0}, "num_training_steps must be an integer of at least 1, got 0"),
        ({"num_training_steps": 1.5}, "num_training_steps must be an integer of at least 1, got 1.5"),
        ({"entropy_loss_weight": -1.0}, "entropy_loss_weight must be a finite number of at least 0, got -1.0"),
        ({"flops_loss_weight": float("inf")}, "flops_loss_weight must be a finite number of at least 0, got inf"),
        ({"anneal_losses": 1}, "anneal_losses must be True or False, got 1"),
        ({"cost": "joules"}, "cost must be one of 'flops', 'params', 'latency', got 'joules'"),
        ({"reference_flops": 0}, "reference_flops must be a finite number above 0 or None, got 0"),
        ({"custom_unprunable_module_classes": (int,)}, "must hold subclasses of nn.Module, got <class 'int'>"),
        ({"custom_unprunable_module_classes": nn.Linear(1, 1)}, "must hold subclasses of nn.Module, got Linear"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(SettingsError) as caught:
        CompressionConfig(**{"pruning_proportion": 0.5, "num_training_steps": 10, **settings})
    assert message in str(caught.value)


def test_one_class_may_stand_for_a_tuple():
    config = CompressionConfig(
        pruning_proportion=1,
        num_training_steps=1,
        custom_unprunable_module_classes=nn.Conv2d,  # type: ignore[arg-type]
    )
    assert config.custom_unprunable_module_classes == (nn.Conv2d,)
