import subprocess
import sys

import pytest
import torch

import torch_dag_core as td
from torch_dag_torchvision import as_list


def assert_found(found, wanted):
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.keys() == theirs.keys()
        assert torch.equal(mine["labels"], theirs["labels"])
        torch.testing.assert_close(mine["scores"], theirs["scores"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mine["boxes"], theirs["boxes"], rtol=1e-5, atol=1e-3)


def test_a_graph_finds_what_the_detector_finds(name, size, detectors):
    dag, limits = detectors.graph(name, size), []
    for seed in (0, 1, 2):
        model = detectors.make(name, seed)
        dag.load_state_dict(model.state_dict(), strict=False)
        for batch in (1, 3):
            given = detectors.images(batch, size, seed)
            with torch.no_grad():
                found, wanted = dag(given), detectors.found_by(model, given)
            assert_found(as_list(found), wanted)
            limits += [(len(one["labels"]), found["labels"].shape[1]) for one in wanted]
    assert all(count for count, _ in limits)
    assert any(count < limit for count, limit in limits)


def test_results_are_padded(detectors):
    found = detectors.graph("ssdlite320_mobilenet_v3_large")(detectors.images(2, detectors.small))
    for image, count in enumerate(found["count"].tolist()):
        assert (found["labels"][image, count:] == -1).all()
        assert (found["labels"][image, :count] > 0).all()
        assert not found["boxes"][image, count:].any()
        assert not found["scores"][image, count:].any()


def test_nothing_is_found_in_an_image_without_scores_above_the_threshold(detectors):
    model = detectors.make("ssdlite320_mobilenet_v3_large")
    model.score_thresh = 1.0
    dag = td.build_from_unstructured_module(model, detectors.images(2, detectors.small), modes="eval")
    found = dag(detectors.images(2, detectors.small))
    assert found["count"].tolist() == [0, 0]
    assert_found(as_list(found), detectors.found_by(model, detectors.images(2, detectors.small)))


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_gradients_are_those_of_the_detector(name, detectors):
    dag, model, given = detectors.graph(name), detectors.make(name), detectors.images(2, detectors.small)
    dag.load_state_dict(model.state_dict(), strict=False)
    for found in (as_list(dag(given)), model(list(given))):
        sum((one["scores"] ** 2).sum() + one["boxes"].sum() / 100 for one in found).backward()
    wanted = {path: parameter.grad for path, parameter in model.named_parameters()}
    for path, parameter in dag.named_parameters():
        if parameter.grad is None:
            assert wanted[path] is None or not wanted[path].any()
        else:
            torch.testing.assert_close(parameter.grad, wanted[path], rtol=1e-3, atol=1e-4)
            parameter.grad = None


def test_a_file_loads_and_names_the_plugin_where_it_is_missing(detectors, tmp_path):
    dag, given = detectors.graph("fasterrcnn_mobilenet_v3_large_320_fpn"), detectors.images(2, detectors.small)
    dag.save(tmp_path / "detector.safetensors")
    again = td.load(tmp_path / "detector.safetensors")
    for name, value in dag(given).items():
        assert torch.equal(again(given)[name], value)
    code = f"import torch_dag_core as td; td.load({str(tmp_path / 'detector.safetensors')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"TORCH_DAG_PLUGINS": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "torch-dag-torchvision" in done.stderr


def test_a_file_loads_without_the_source_of_the_detectors(detectors, tmp_path):
    detectors.graph("ssdlite320_mobilenet_v3_large").save(tmp_path / "detector.safetensors")
    code = (
        "import torch, torch_dag_core as td, torchvision.models.detection as d; del d.ssd.SSD;"
        f"print(td.load({str(tmp_path / 'detector.safetensors')!r})(torch.rand(1, 3, 80, 64))['count'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "torch.Size([1])" in done.stdout, done.stderr


def test_the_whole_graph_exports(detectors):
    given = detectors.images(2, detectors.small)
    dag = detectors.graph("fasterrcnn_mobilenet_v3_large_320_fpn")
    exported = torch.export.export(dag, (given,)).module()
    for name, value in dag(given).items():
        assert torch.equal(exported(given)[name], value)


def test_the_size_of_images_is_fixed_and_the_batch_is_free(detectors):
    dag = detectors.graph("ssdlite320_mobilenet_v3_large")
    assert dag(detectors.images(4, detectors.small))["count"].shape == (4,)
    with pytest.raises(td.InputError, match="64"):
        dag(detectors.images(2, detectors.wide))


def test_example_inputs_have_the_size_that_the_detector_resizes_to(detectors):
    model = detectors.make("ssdlite320_mobilenet_v3_large")
    dag = td.build_from_unstructured_module(model, modes="eval")
    assert dag(torch.rand(1, 3, 320, 320))["boxes"].shape == (1, model.detections_per_img, 4)


def test_lists_of_images_targets_and_training_are_refused(detectors):
    model, given = detectors.make("ssdlite320_mobilenet_v3_large"), detectors.images(2, detectors.small)
    with pytest.raises(td.TraceError, match="batch of images of one size"):
        td.build_from_unstructured_module(model, (list(given),), modes="eval")
    with pytest.raises(td.TraceError, match='modes="eval"'):
        td.build_from_unstructured_module(model, given)
    targets = [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1, dtype=torch.int64)}] * 2
    with pytest.raises(td.TraceError, match="targets"):
        td.build_from_unstructured_module(model, (given, targets), modes="eval")
