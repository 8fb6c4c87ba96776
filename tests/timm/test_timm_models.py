"""Whole models of many families: same outputs, same keys, at every batch size and in both modes."""

from __future__ import annotations

import pytest
import torch

from torch_dag_core.errors import InputError
from torch_dag_timm.releases import at_least

# Where a model's image size is fixed when it is built, a small one keeps the tests fast.
CONVOLUTIONAL = {
    "resnet18": {}, "resnet50": {}, "mobilenetv3_small_100": {}, "efficientnet_b0": {"drop_path_rate": 0.2},
    "tf_efficientnet_b0": {}, "convnextv2_atto": {"drop_path_rate": 0.2}, "densenet121": {}, "regnety_002": {},
}  # fmt: skip
FIXED = {
    "vit_tiny_patch16_224": {"img_size": 64, "drop_path_rate": 0.2},
    "deit3_small_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "drop_path_rate": 0.2},
    "mixer_s16_224": {"img_size": 64},
    "levit_128s": {"img_size": 64},
}  # fmt: skip
STEPWISE = {"maxvit_pico_rw_256": {"img_size": 64, "drop_path_rate": 0.2}}
MODELS = {**CONVOLUTIONAL, **FIXED, **STEPWISE}
# An addcmul becomes a product and a sum, which round twice; a mean stands for a sum and a count.
TOLERANCES = {"convnextv2_atto": 1e-5, "dropped blocks": 1e-5}
SIZE = 64
# Of fewer samples of a pixel or two, as at the end of a small image, a batch norm makes nearly the same signs always.
TRAINING_BATCH = 5


@pytest.fixture(scope="module")
def converted():
    """Remember each model and its graph for the other tests."""
    return {}


@pytest.fixture
def both(make, convert, converted):
    """Return a function that builds and converts a model, once."""

    def build(name):
        if name not in converted:
            model = make(name, **MODELS[name])
            converted[name] = model, convert(model, torch.zeros(2, 3, SIZE, SIZE))
        return converted[name]

    return build


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_in_evaluation(name, both, assert_equal):
    model, dag = both(name)
    for batch in (1, 2, 5):
        assert_equal(model, dag, torch.randn(batch, 3, SIZE, SIZE), tolerance=TOLERANCES.get(name, 0.0))


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_statistics_equal_in_training(name, both, assert_equal):
    model, dag = both(name)
    image = torch.randn(TRAINING_BATCH, 3, SIZE, SIZE)
    assert_equal(model, dag, image, training=True, tolerance=TOLERANCES.get(name, 0.0))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_models_keep_every_image_size(name, both, assert_equal):
    model, dag = both(name)
    assert dag.input_spec.tensors[0].shape == (None, 3, None, None)
    for space in ((96, 64), (75, 101)):
        assert_equal(model, dag, torch.randn(2, 3, *space), tolerance=TOLERANCES.get(name, 0.0))


@pytest.mark.parametrize("name", STEPWISE)
def test_models_of_whole_windows_take_whole_steps_of_image_sizes(name, both, assert_equal):
    model, dag = both(name)
    assert dag.input_spec.tensors[0].shape == (None, 3, None, None)
    for space in ((128, 64), (192, 128)):
        assert_equal(model, dag, torch.randn(2, 3, *space), tolerance=TOLERANCES.get(name, 0.0))
    with pytest.raises(InputError, match="holds only where"):
        dag(torch.randn(1, 3, SIZE + 32, SIZE))


@pytest.mark.parametrize("name", FIXED)
def test_models_of_one_image_size_say_so(name, both):
    _, dag = both(name)
    assert dag.input_spec.tensors[0].shape == (None, 3, SIZE, SIZE)
    with pytest.raises(InputError, match="the image size is fixed"):
        dag(torch.randn(1, 3, SIZE + 32, SIZE))


@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_of_the_source_load(name, both, make, assert_equal):
    _, dag = both(name)
    other = make(name, **MODELS[name])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    dag = dag.clone()
    assert dag.load_state_dict(other.state_dict(), strict=True).missing_keys == []
    assert_equal(other, dag, torch.randn(2, 3, SIZE, SIZE), tolerance=TOLERANCES.get(name, 0.0))


@pytest.mark.parametrize("name", MODELS)
def test_every_call_has_an_op_of_its_own(name, both, kinds):
    _, dag = both(name)
    assert {"TorchCall", "TrainingSwitch", "Random", "State", "SetIndex"}.isdisjoint(kinds(dag))


def test_a_model_that_has_run_converts_to_the_same_graph(make, convert, assert_equal):
    model = make("levit_128s", img_size=64)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
    dag = convert(model, image)
    with torch.no_grad():
        torch.testing.assert_close(model(image), before, rtol=0, atol=0)
        torch.testing.assert_close(dag(image), before, rtol=0, atol=0)
    assert dag.state_dict().keys() == model.state_dict().keys()


VARIANTS = {
    "features of a network": ("resnet18", {"features_only": True}),
    "features of a transformer": ("vit_tiny_patch16_224", {"features_only": True, "img_size": 64}),
    "features of a window transformer": ("swin_tiny_patch4_window7_224", {"features_only": True, "img_size": 64}),
    "no classifier": ("resnet18", {"num_classes": 0, "global_pool": ""}),
    "dilated": ("resnet18", {"output_stride": 8}),
    "a position embedding for any size": ("vit_tiny_patch16_224", {"img_size": 64, "dynamic_img_size": True}),
    "dropped patches": ("vit_tiny_patch16_224", {"img_size": 64, "patch_drop_rate": 0.3}),
    "dropped blocks": ("resnet18", {"drop_block_rate": 0.3}),
    "no class token": ("vit_tiny_patch16_224", {"img_size": 64, "class_token": False, "global_pool": "avg"}),
    "other channels": ("resnet18", {"in_chans": 1}),
}
SINCE = {"dropped blocks": (1, 0, 23)}  # before, timm divides by zero where the image is smaller than a block


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_a_model_convert_as_well(variant, make, convert, assert_equal):
    if not at_least(*SINCE.get(variant, ())):
        pytest.skip("this release of timm fails at it")
    name, options = VARIANTS[variant]
    model = make(name, **options)
    channels = options.get("in_chans", 3)
    dag = convert(model, torch.zeros(2, channels, SIZE, SIZE))
    for batch, training in ((1, False), (3, False), (TRAINING_BATCH, True)):
        image = torch.randn(batch, channels, SIZE, SIZE)
        assert_equal(model, dag, image, training=training, tolerance=TOLERANCES.get(variant, 0.0))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_gradient_checkpointing_leaves_no_trace(name, make, convert, kinds, assert_equal):
    options = {"img_size": 64} if "vit" in name else {}
    model = make(name, **options)
    image = torch.zeros(2, 3, SIZE, SIZE)
    expected = kinds(convert(model, image))
    model.set_grad_checkpointing(True)
    dag = convert(model, image)
    assert kinds(dag) == expected
    assert_equal(model, dag, torch.randn(TRAINING_BATCH, 3, SIZE, SIZE), training=True)
