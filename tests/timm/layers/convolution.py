"""timm's convolutions, their compounds, and moves of pixels into channels."""

from torch import nn

B = -1
IMAGE = (B, 6, 9, 9)
SIX = {"in_channels": 6, "out_channels": 8}
SAME = {**SIX, "kernel_size": 3, "stride": 2, "padding": "same"}
STANDARDIZED = {"in_channel": 6, "out_channels": 8, "kernel_size": 3}

LAYERS = {
    "cond_conv2d.CondConv2d": [
        ({**SIX, "bias": True}, IMAGE, (B, 4)),
        ({**SIX, "padding": "same", "stride": 2, "groups": 2}, IMAGE, (B, 4)),
    ],
    "conv2d_same.Conv2dSame": [({**SIX, "kernel_size": 3, "stride": 2}, IMAGE)],
    "conv2d_same.Conv2dSameExport": [({**SIX, "kernel_size": 3, "stride": 2}, IMAGE)],
    "conv_bn_act.ConvNormAct": [
        (SIX, IMAGE),
        ({**SAME, "norm_layer": "groupnorm1", "act_layer": "silu"}, IMAGE),
        ({**SIX, "stride": 2, "kernel_size": 3, "aa_layer": "blur"}, IMAGE),
    ],
    "mixed_conv2d.MixedConv2d": [
        ({**SIX, "kernel_size": [3, 5]}, IMAGE),
        (
            {
                "in_channels": 6,
                "out_channels": 6,
                "kernel_size": [3, 5],
                "depthwise": True,
                "padding": "same",
                "stride": 2,
            },
            IMAGE,
        ),
    ],
    "separable_conv.SeparableConv2d": [(SIX, IMAGE), (SAME, IMAGE)],
    "separable_conv.SeparableConvNormAct": [(SIX, IMAGE), ({**SAME, "act_layer": nn.SiLU}, IMAGE)],
    "space_to_depth.DepthToSpace": [({"block_size": 2}, (B, 8, 4, 4))],
    "space_to_depth.SpaceToDepth": [({"block_size": 4}, (B, 3, 8, 8))],
    "std_conv.ScaledStdConv2d": [
        ({**SIX, "kernel_size": 3}, IMAGE),
        ({**SIX, "kernel_size": 3, "stride": 2, "bias": False}, IMAGE),
    ],
    "std_conv.ScaledStdConv2dSame": [({**SIX, "kernel_size": 3, "stride": 2}, IMAGE)],
    "std_conv.StdConv2d": [(STANDARDIZED, IMAGE), ({**STANDARDIZED, "stride": 2, "bias": True, "groups": 2}, IMAGE)],
    "std_conv.StdConv2dSame": [({**STANDARDIZED, "stride": 2}, IMAGE)],
}
