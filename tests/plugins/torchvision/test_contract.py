"""The plugin's records under the contract that their kit asks of everybody's, where they have examples."""

import pytest

from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.testing.cases import plugin_records, record_name
from torch_dag_core.testing.collection import record_tests

RECORDS = {record_name(record): record for record in plugin_records("torch-dag-torchvision")}
DETECTORS = {name for name in RECORDS if name.startswith("torchvision.models.detection.")}
TESTS = [test for name in RECORDS.keys() - DETECTORS for test in record_tests(RECORDS[name], default_registry())]


def test_detectors_and_what_they_need_are_registered():
    assert {name.rpartition(".")[2] for name in DETECTORS} == {"SSD", "RetinaNet", "FCOS", "FasterRCNN"}
    assert RECORDS.keys() - DETECTORS == {
        "torchvision.dense_detections", "torchvision.proposals", "torchvision.pyramid_roi_align",
        "torchvision.region_detections", "torchvision.ops.misc.FrozenBatchNorm2d",
    }  # fmt: skip


@pytest.mark.parametrize("test", sorted(TESTS, key=lambda test: test.name), ids=lambda test: test.name)
def test_contract(test):
    test()
