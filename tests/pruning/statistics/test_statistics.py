"""Statistics against sums taken by hand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.errors import CalibrationError
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.statistics import consumers as consumers_module
from torch_dag_pruning.statistics.consumers import consumers
from torch_dag_pruning.statistics.statistics import Statistics

EVERYWHERE = 10**6


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return awaken(Small()).eval()


@pytest.fixture
def analysis(model):
    x = torch.randn(2, 3, 6, 6)
    return analyze(build_from_unstructured_module(model, x), x)


@pytest.fixture
def images():
    return torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_moments_are_those_of_the_patches(model, analysis, images):
    found = Statistics.collect(analysis, [images], positions=EVERYWHERE)
    assert found.samples == 12
    assert set(found.moments) == {"b", "head"}
    patches = F.unfold(F.relu(model.a(images)), 3, padding=1).detach().double()
    for group, each in enumerate(patches.unflatten(1, (2, -1)).unbind(1)):
        rows = each.transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(found.moments["b"].mean[group], rows.mean(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.moments["b"].covariance[group], rows.T.cov(correction=0), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.moments["b"].second[group], rows.square().mean(0))
    assert found.moments["b"].count == 12 * 36


def test_above_a_bound_moments_are_those_of_channels(model, analysis, images, monkeypatch):
    monkeypatch.setattr(consumers_module, "MOST_COLUMNS", 30)
    found = Statistics.collect(analysis, [images], positions=EVERYWHERE).moments["b"]
    assert found.gram.shape == (2, 4, 4)
    taps = F.unfold(F.relu(model.a(images)), 3, padding=1).detach().double().unflatten(1, (2, 4, 9))
    rows = taps.permute(1, 0, 3, 4, 2).flatten(1, 3)
    torch.testing.assert_close(found.gram, rows.mT @ rows)


def test_four_shards_make_one_pass(analysis, images):
    loss = lambda y, batch: F.cross_entropy(y, batch[1], reduction="none")  # noqa: E731
    labels = torch.arange(12) % 4
    whole = Statistics.collect(analysis, [(images, labels)], positions=EVERYWHERE, loss=loss)
    shards = [(images[at : at + 3], labels[at : at + 3]) for at in range(0, 12, 3)]
    first, *rest = [Statistics.collect(analysis, [shard], positions=EVERYWHERE, loss=loss) for shard in shards]
    merged = first
    for more in rest:
        merged = merged + more
    _assert_equal(merged, whole)


def _assert_equal(some, other):
    assert some.samples == other.samples
    for name, moments in some.moments.items():
        assert moments.count == other.moments[name].count
        torch.testing.assert_close(moments.gram, other.moments[name].gram, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(moments.total, other.moments[name].total, rtol=1e-6, atol=1e-9)
    for kind in ("total", "absolute", "square"):
        mine, theirs = getattr(some.gradients, kind), getattr(other.gradients, kind)
        for key, value in mine.items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-9)


def test_files_give_back_what_was_saved(analysis, images, tmp_path):
    found = Statistics.collect(analysis, [images], loss="outputs")
    found.save(tmp_path / "s.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]
    _assert_equal(Statistics.load(tmp_path / "s.safetensors"), found)
    Statistics.collect(analysis, [images]).save(tmp_path / "s.safetensors")
    assert Statistics.load(tmp_path / "s.safetensors").gradients is None


def test_what_is_no_file_of_statistics_is_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CalibrationError, match="is no file of statistics"):
        Statistics.load(path)


def test_gradients_are_those_of_the_masks_of_each_sample(model, analysis, images):
    labels = torch.arange(12) % 4
    loss = lambda y, batch: F.cross_entropy(y, batch[1], reduction="none")  # noqa: E731
    found = Statistics.collect(analysis, [(images, labels)], loss=loss).gradients
    masking = Masking(analysis)
    masks = {key: torch.ones_like(mask, requires_grad=True) for key, mask in masking.masks.items()}
    masking.update(masks)
    rows = {key: [] for key in masks}
    for image, label in zip(images, labels, strict=True):
        value = F.cross_entropy(masking.dag(image[None]), label[None])
        gradients = torch.autograd.grad(value, list(masks.values()), retain_graph=True)
        for key, gradient in zip(masks, gradients, strict=True):
            rows[key].append(gradient.double())
    for key, each in rows.items():
        table = torch.stack(each)
        torch.testing.assert_close(found.total[key], table.sum(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.absolute[key], table.abs().sum(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.square[key], table.square().sum(0), rtol=1e-4, atol=1e-6)


def test_graphs_keep_their_modes_and_have_no_gradients(model, images):
    dag = build_from_unstructured_module(model, images[:2]).train()
    Statistics.collect(analyze(dag, images[:2]), [images], loss="outputs")
    assert dag.training
    assert all(parameter.grad is None for parameter in dag.parameters())


def test_the_size_is_known_before(analysis, images):
    found = Statistics.collect(analysis, [images])
    size = sum(8 * (each.gram.numel() + each.total.numel()) for each in found.moments.values())
    assert Statistics.bytes_needed(analysis) == size
    with pytest.raises(CalibrationError, match=re.escape(f"take {size:,} bytes, more than most_bytes=100")):
        Statistics.collect(analysis, [images], most_bytes=100)


def test_progress_counts_samples(analysis, images):
    seen = []
    Statistics.collect(analysis, [images[:5], images[5:]], progress=seen.append)
    assert seen == [5, 7]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "holds no batch"),
        (torch.zeros(2, 3, 6, 6), "not one tensor"),
        (["images"], "batch 0 must hold a tensor"),
        ([{"y": torch.zeros(2, 3, 6, 6)}], "for each of the inputs x, got dict"),
        ([torch.zeros(0, 3, 6, 6)], "at least one sample"),
    ],
)
def test_what_is_no_data_is_refused(analysis, batches, message):
    with pytest.raises(CalibrationError, match=message):
        Statistics.collect(analysis, batches)


def test_batches_may_be_mappings(analysis, images):
    assert Statistics.collect(analysis, [{"x": images, "label": None}]).samples == 12


def test_a_loss_gives_one_value_for_each_sample(analysis, images):
    with pytest.raises(CalibrationError, match=re.escape("one value for each of 12 samples, got ()")):
        Statistics.collect(analysis, [images], loss=lambda y, _: y.mean())


def test_statistics_of_other_graphs_are_told_apart(analysis, images):
    found = Statistics.collect(analysis, [images])
    with pytest.raises(CalibrationError, match="cannot be added"):
        _ = found + Statistics.collect(analysis, [images], loss="outputs")
    other = analyze(build_from_unstructured_module(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.ones(2, 3)))
    with pytest.raises(CalibrationError, match="of another graph: they say nothing of '1'"):
        found.require(other)


def test_settings_are_checked(analysis, images):
    with pytest.raises(SettingsError, match="positions must be an integer"):
        Statistics.collect(analysis, [images], positions=0)


def test_a_shared_module_is_one_consumer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.last = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = F.relu(self.first(x))
            return self.last(F.relu(self.again(F.relu(self.again(x)))))

    x = torch.randn(5, 3)
    analysis = analyze(build_from_unstructured_module(Shared().eval(), x), x)
    found = Statistics.collect(analysis, [x])
    assert [len(consumer.calls) for consumer in consumers(analysis).values()] == [2, 1]
    assert {moments.count for moments in found.moments.values()} == {10, 5}
