"""What channel pruning has to know; imported only where torch-dag-pruning is installed."""

from __future__ import annotations

from torch_dag_pruning.axes.relation import Context, Relation, axis_rule

_REGIONS = "regions of an image"
_DATA = "read by the filtering of boxes"


@axis_rule("torchvision.pyramid_roi_align")
def pyramid_roi_align(ctx: Context) -> Relation:
    """Tie the channels of all feature maps and pass them on; regions and space stay."""
    boxes, *features = ctx.inputs
    channels = features[0][1]
    for feature in features:
        ctx.unify(channels, feature[1])
        ctx.freeze([feature[0], *feature[2:]], _REGIONS)
    ctx.freeze(boxes, _REGIONS)
    regions, _, *space = (ctx.fixed(n, _REGIONS) for n in ctx.outputs[0])
    return Relation([[regions, channels, *space]])


@axis_rule("torchvision.dense_detections", "torchvision.proposals", "torchvision.region_detections")
def filtering(ctx: Context) -> Relation:
    """Keep everything: which box is kept depends on the values of all of them."""
    for operand in ctx.inputs:
        ctx.freeze(operand, _DATA)
    return Relation([[ctx.fixed(n, _DATA) for n in shape] for shape in ctx.outputs])
