"""Data that the user named on the command line."""

from __future__ import annotations

import builtins
import re
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.cli.calibration import Amount, Preprocessing, read_calibration
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, ModelReferenceError


class Net(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)

    def forward(self, x):
        return self.conv(x)


def graph(channels=3):
    return build_from_unstructured_module(Net(channels).eval(), torch.randn(2, channels, 12, 10))


def read(source, amount=Amount(), model=None, channels=3):  # noqa: B008
    return read_calibration(str(source), model or nn.Identity(), "module:net", graph(channels), amount)


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "some").mkdir()
    for number in range(5):
        image.new("RGB", (40, 30), (10 * number, 200, 0)).save(tmp_path / "some" / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_images_become_normalised_batches(folder):
    batches = read(folder, Amount(samples=4, batch=3))
    assert [tuple(batch.shape) for batch in batches] == [(3, 3, 12, 10), (1, 3, 12, 10)]
    green = (200 / 255 - 0.456) / 0.224
    torch.testing.assert_close(torch.cat(batches)[:, 1], torch.full((4, 12, 10), green))
    assert all(torch.equal(a, b) for a, b in zip(batches, read(folder, Amount(samples=4, batch=3)), strict=True))


def test_the_models_own_normalisation_is_used(folder):
    model = nn.Identity()
    colours = {"mean": (0.5, 0.5, 0.5), "std": (0.1, 0.1, 0.1)}
    model.pretrained_cfg = {**colours, "crop_pct": 1.0, "interpolation": "nearest"}
    (batch,) = read(folder, model=model)
    torch.testing.assert_close(batch[:, 1], torch.full((5, 12, 10), (200 / 255 - 0.5) / 0.1))
    assert Preprocessing.of(model, "module:net", graph()).resized == 1.0


def test_torchvision_says_how_its_models_see():
    pytest.importorskip("torchvision")
    found = Preprocessing.of(nn.Identity(), "torchvision:efficientnet_b0", graph())
    assert (found.resized, found.interpolation) == (256 / 224, "bicubic")
    assert Preprocessing.of(nn.Identity(), "torchvision:no_such_model", graph()).resized == 1 / 0.875


def test_the_middle_of_an_image_is_seen(tmp_path):
    image = pytest.importorskip("PIL.Image").new("L", (120, 12), 0)
    image.paste(255, (60, 0, 120, 12))
    image.save(tmp_path / "half.png")
    pixels = Preprocessing((1, 12, 12), resized=1.0, mean=(0.0,), deviation=(1.0,)).read(tmp_path / "half.png")
    assert pixels.shape == (1, 12, 12)
    assert float(pixels[0, :, :4].max()) == 0.0
    assert float(pixels[0, :, -4:].min()) == 1.0


def test_one_channel_is_grey(folder):
    (batch,) = read(folder, channels=1)
    assert batch.shape == (5, 1, 12, 10)


def test_tensors_of_a_file_are_cut_into_batches(tmp_path):
    images = torch.randn(10, 3, 12, 10)
    save_file({"anything": images}, tmp_path / "data.safetensors")
    batches = read(tmp_path / "data.safetensors", Amount(samples=7, batch=4))
    assert [len(batch[0]) for batch in batches] == [4, 4]
    assert torch.equal(batches[0][0], images[:4])


def test_callables_give_batches(tmp_path, monkeypatch):
    lines = ["import torch", "def batches():", "    while True:", "        yield torch.ones(3, 3, 12, 10), 1"]
    (tmp_path / "my_data.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert len(read("my_data:batches", Amount(samples=8))) == 3


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nothing", ModelReferenceError, "'nothing' is no calibration data; name a folder of images"),
        ("nothing.safetensors", InputError, "there is no file 'nothing.safetensors'"),
        ("math:pi", InputError, "must give an iterable of batches, got a float"),
        ("math:no", ModelReferenceError, "which 'math' does not have"),
    ],
)
def test_what_is_no_data_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        read(source)


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "data.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no safetensors file"):
        read(path)
    save_file({"a": torch.ones(2, 3), "b": torch.ones(3, 3)}, path)
    with pytest.raises(InputError, match="must hold a tensor for each of x"):
        read(path)


def test_folders_that_do_not_fit_are_refused(tmp_path):
    pytest.importorskip("PIL")
    with pytest.raises(InputError, match="holds no image"):
        read(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=re.escape("broken.png' is no image that Pillow reads")):
        read(tmp_path)
    words = build_from_unstructured_module(nn.Linear(4, 2), torch.ones(2, 4))
    with pytest.raises(InputError, match=r"models of one input .* this one takes \(2, 4\)"):
        read_calibration(str(tmp_path), nn.Identity(), "module:net", words, Amount())


def test_a_missing_pillow_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "PIL" or name.startswith("PIL."):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=re.escape("pip install torch-dag-core[images]")):
        read(tmp_path)
