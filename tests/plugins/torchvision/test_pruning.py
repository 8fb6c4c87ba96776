import pytest
import torch

import torch_dag_pruning as tdp


@pytest.mark.parametrize(
    "name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "fcos_resnet50_fpn"]
)
def test_networks_before_the_boxes_are_pruned(name, detectors):
    dag = detectors.graph(name)
    analysis = tdp.analyze(dag)
    plan = tdp.Plan.by_importance(analysis, "l2", keep_flops=0.6)
    cut = tdp.Cut(analysis, plan)
    pruned = cut.removed()
    cut.prove(pruned, [detectors.images(2, detectors.small)])
    masked = tdp.masked_model(dag, plan)
    for found, wanted in zip(
        pruned(detectors.images(2, detectors.small)).values(),
        masked(detectors.images(2, detectors.small)).values(),
        strict=True,
    ):
        assert found.shape == wanted.shape
    assert sum(p.numel() for p in pruned.parameters()) < 0.9 * sum(p.numel() for p in dag.parameters())


def test_masked_equals_removed_before_and_after_every_filter(detectors):
    dag = detectors.graph("fasterrcnn_mobilenet_v3_large_320_fpn")
    cut = tdp.Cut(analysis := tdp.analyze(dag), tdp.Plan.by_importance(analysis, "random", keep_flops=0.7))
    removed = cut.removed()
    proof = cut.prove(removed, [detectors.images(2, detectors.small)])
    assert proof.worst < 1e-4
    assert proof.effect > 0
    masked, given = cut.masked().double().eval(), detectors.images(2, detectors.small).double()
    for found, wanted in zip(removed.double().eval()(given).values(), masked(given).values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_what_is_filtered_stays_and_says_why(detectors):
    dag = detectors.graph("fasterrcnn_mobilenet_v3_large_320_fpn")
    analysis = tdp.analyze(dag)
    report = str(analysis)
    assert "read by the filtering of boxes" in report
    cut = tdp.Cut(analysis, tdp.Plan.by_importance(analysis, "l2", keep_flops=0.5))
    pruned = cut.removed()
    cut.prove(pruned, [detectors.images(2, detectors.small)])
    predictor = pruned.get_submodule("roi_heads.box_predictor.cls_score")
    assert predictor.out_features == 5
    assert predictor.in_features < 1024
    assert pruned.get_submodule("roi_heads.box_head.fc6").in_features % 49 == 0
    assert pruned.get_submodule("roi_heads.box_head.fc6").in_features < 256 * 49
