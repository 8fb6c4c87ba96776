"""timm builds shared graphs, prepares their inputs, and evaluates them as its own scripts do."""

from __future__ import annotations

import json

import pytest
import torch

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_hub import HubError, save_pretrained

timm = pytest.importorskip("timm")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch_dag_hub.with_timm")


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=5).eval()


@pytest.fixture(scope="module")
def graph(source):
    dag = td.build_from_unstructured_module(source, torch.randn(2, 3, 64, 64))
    return tdp.OneShotChannelPruning(dag, None, 0.6).finalize()


@pytest.fixture
def folder(graph, source, tmp_path):
    cfg = {**source.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "crop_pct": 0.9, "input_size": (3, 64, 64)}
    return save_pretrained(graph, tmp_path / "net", pretrained_cfg=cfg)


def test_timm_builds_the_graph_with_its_weights(graph, folder):
    images = torch.randn(2, 3, 64, 64)
    for pretrained in (False, True):
        model = timm.create_model(f"local-dir:{folder}", pretrained=pretrained)
        assert torch.equal(model.eval()(images), graph(images))
        assert model.state_dict().keys() == graph.state_dict().keys()
    assert (model.num_classes, model.num_features) == (5, graph.get_vertex_by_name("fc").module.in_features)


def test_timm_knows_how_inputs_are_prepared(folder, source):
    data = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{folder}"))
    wanted = timm.data.resolve_model_data_config(source)
    assert (tuple(data["mean"]), data["crop_pct"], tuple(data["input_size"])) == ((0.1, 0.2, 0.3), 0.9, (3, 64, 64))
    assert (data["interpolation"], tuple(data["std"])) == (wanted["interpolation"], wanted["std"])
    assert timm.data.create_transform(**data)(Image.new("RGB", (90, 80))).shape == (3, 64, 64)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # timm leaves the files of its images to the garbage collector
def test_an_evaluation_with_timms_loader_gives_what_the_graph_gives(graph, folder, tmp_path):
    """The loop of timm's ``validate.py``, which is not in its wheel, on a small folder of images."""
    for index in range(10):
        place = tmp_path / "images" / f"class{index % 5}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (70, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        Image.fromarray(pixels.numpy()).save(place / f"{index}.png")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=3, num_classes=5, drop_rate=0.0).eval()
    data = timm.data.resolve_data_config({}, model=model, use_test_size=True)
    data["input_size"] = (3, 64, 64)
    loader = timm.data.create_loader(
        timm.data.create_dataset("", str(tmp_path / "images")), batch_size=4, use_prefetcher=False, num_workers=0,
        device=torch.device("cpu"), persistent_workers=False, **data,
    )  # fmt: skip
    seen, ranks = 0, []
    with torch.inference_mode():
        for images, labels in loader:
            outputs = model(images)
            assert torch.equal(outputs, graph(images))
            ranks.append(timm.utils.accuracy(outputs, labels, topk=(1, 5)))
            seen += len(images)
    assert seen == 10
    assert all(float(top5) == 100.0 for _, top5 in ranks)


def test_checkpoints_of_timm_go_into_the_model(graph, folder, tmp_path):
    other = graph.clone()
    torch.nn.init.ones_(other.get_vertex_by_name("fc").module.bias)
    torch.save(other.state_dict(), tmp_path / "trained.pth")
    model = timm.create_model(f"local-dir:{folder}", checkpoint_path=str(tmp_path / "trained.pth"))
    assert torch.equal(model.get_vertex_by_name("fc").module.bias, torch.ones(5))


def test_a_model_of_timm_is_a_graph_that_is_shared_again(folder, tmp_path):
    model = timm.create_model(f"local-dir:{folder}")
    save_pretrained(model, tmp_path / "again", pretrained_cfg=model.pretrained_cfg)
    assert (tmp_path / "again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    analysis = tdp.analyze(model)
    half = tdp.remove_channels(model, tdp.Plan.random(analysis, 0.5), analysis=analysis)
    assert len(half.provenance["removals"]) == 2


def test_other_models_than_the_saved_one_are_refused(folder):
    for wrong in ({"num_classes": 7}, {"in_chans": 1}, {"drop_rate": 0.1}, {"global_pool": "max"}, {"img_size": 32}):
        (name,) = wrong
        with pytest.raises(
            HubError, match=rf"a graph is as it was saved, so {name}=.* cannot be followed; leave it out"
        ):
            timm.create_model(f"local-dir:{folder}", **wrong)
    timm.create_model(f"local-dir:{folder}", num_classes=5, in_chans=3, img_size=64, drop_path_rate=0.0)


def test_the_bare_architecture_has_no_graph():
    with pytest.raises(HubError, match=r"stands for graphs in files; name one: .*local-dir:FOLDER"):
        timm.create_model("torch_dag")


@pytest.mark.parametrize("removed", [0, 2])
def test_names_of_classes_go_with_the_classes(source, tmp_path, removed):
    dag = td.build_from_unstructured_module(source, torch.randn(2, 3, 64, 64))
    name = dag.outputs[0].name
    analysis = tdp.analyze(dag, free_outputs=[name])
    plan = tdp.Plan.keeping(analysis, {f"{name}.weight:0": range(5 - removed)})
    fewer = tdp.remove_channels(dag, plan, analysis=analysis)
    labels = {"label_names": list("abcde"), "label_descriptions": {"a": "A"}}
    save_pretrained(fewer, tmp_path, pretrained_cfg={**source.pretrained_cfg, **labels})
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["num_classes"] == content["pretrained_cfg"]["num_classes"] == 5 - removed
    assert ("label_names" in content["pretrained_cfg"]) == (removed == 0)
    assert timm.create_model(f"local-dir:{tmp_path}").num_classes == 5 - removed


def test_sizes_that_the_graph_does_not_take_are_left_out(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=1).eval()
    dag = td.build_from_unstructured_module(model, torch.randn(2, 3, 32, 32))
    cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32), "test_input_size": (3, 64, 64)}
    save_pretrained(dag, tmp_path, pretrained_cfg=cfg)
    content = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert content["fixed_input_size"]
    assert "test_input_size" not in content
    assert timm.create_model(f"local-dir:{tmp_path}", img_size=(32, 32)).num_features == 192
    with pytest.raises(HubError, match=r"is \(3, 224, 224\), which the graph does not take"):
        save_pretrained(dag, tmp_path, pretrained_cfg={**cfg, "input_size": (3, 224, 224)})
