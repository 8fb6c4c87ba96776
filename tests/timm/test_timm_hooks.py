"""What the plugin adds through each hook."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.loading import default_registry, first_answer, list_plugins
from torch_dag_core.plugins.registry import qualified_name
from torch_dag_timm import plugin


def model_source(reference, **options):
    return first_answer("torch_dag_model_source", nn.Module, reference=reference, options=options)


def example_inputs(model):
    return first_answer("torch_dag_example_inputs", tuple, model=model)


def test_plugin_loads_without_error():
    (info,) = [info for info in list_plugins() if info.name == "timm"]
    assert info.error is None
    assert set(info.hooks) == {name for name in vars(plugin) if name.startswith("torch_dag_")} - {"torch_dag_timm"}


def test_hook_torch_dag_atomic_modules():
    registry = default_registry()
    module = timm.layers.DropPath(0.1)
    assert registry.atomic_for(module).owner == "torch-dag-timm"
    names = [spec.name for spec in plugin.torch_dag_atomic_modules()]
    assert len(set(names)) == len(names) > 5


def test_every_record_is_of_a_class_of_this_release():
    names = {spec.name for spec in plugin.torch_dag_atomic_modules()}
    examples = [module for spec in plugin.torch_dag_atomic_modules() for module, _ in spec.examples()]
    assert all(default_registry().atomic_for(module) is not None for module in examples)
    assert names - {qualified_name(type(module)) for module in examples} <= {"timm.models.vision_transformer.Attention"}


@pytest.mark.parametrize("spec", plugin.torch_dag_atomic_modules(), ids=lambda spec: spec.name)
def test_examples_are_the_same_each_time_and_not_at_rest(spec):
    for (module, inputs), (twin, same) in zip(spec.examples(), spec.examples(), strict=True):
        torch.testing.assert_close(twin.state_dict(), module.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(same, inputs, rtol=0, atol=0)
        assert all(parameter.std() > 0 for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet18", {}, (2, 3, 224, 224)),
        ("maxvit_pico_rw_256", {}, (2, 3, 256, 256)),
        ("resnet18", {"in_chans": 5}, (2, 5, 224, 224)),
        ("vit_tiny_patch16_224", {"img_size": 64}, (2, 3, 64, 64)),
        ("mixer_s16_224", {"img_size": 64}, (2, 3, 64, 64)),
        ("vit_tiny_patch16_224", {"img_size": (32, 96), "in_chans": 1}, (2, 1, 32, 96)),
    ],
)
def test_hook_torch_dag_example_inputs(name, options, shape):
    (image,) = example_inputs(timm.create_model(name, **options))
    assert image.shape == shape


def test_example_inputs_of_a_model_that_remembers_one_side():
    model = timm.create_model("efficientvit_m0", img_size=64)
    if not hasattr(model, "img_size"):
        pytest.skip(f"efficientvit of timm {timm.__version__} forgets the size it is built for")
    (image,) = example_inputs(model)
    assert image.shape == (2, 3, 64, 64)


def test_example_inputs_leave_other_models_to_others():
    assert example_inputs(nn.Linear(2, 3)) is None


def test_example_inputs_ignore_a_foreign_model_that_looks_like_timm():
    model = nn.Linear(2, 3)
    model.pretrained_cfg = {"input_size": (3, 224, 224)}
    assert example_inputs(model) is None


def test_hook_torch_dag_model_source():
    model = model_source("timm:resnet18", num_classes=7)
    assert qualified_name(type(model)) == "timm.models.resnet.ResNet"
    assert model.fc.out_features == 7


def test_model_source_knows_pretrained_tags():
    assert model_source("timm:resnet10t.c3_in1k").num_features == 512


def test_model_source_ignores_other_prefixes():
    assert plugin.torch_dag_model_source("resnet18", {}) is None
    assert plugin.torch_dag_model_source("torchvision:resnet18", {}) is None


def test_model_source_refuses_unknown_names():
    with pytest.raises(ModelReferenceError, match=r"timm .* has no model 'resnet17'"):
        model_source("timm:resnet17")


def test_model_source_refuses_options_that_do_not_fit():
    with pytest.raises(ModelReferenceError, match=r"'timm:resnet18' cannot be built with \{'depth': 3\}: TypeError"):
        model_source("timm:resnet18", depth=3)
