"""timm's layers that weight channels or places of an image by the image itself."""

from torch import nn

B = -1
IMAGE, LAST = (B, 16, 8, 8), (B, 8, 8, 16)
CHANNELS = {"channels": 16}

LAYERS = {
    "cbam.CbamModule": [(CHANNELS, IMAGE)],
    "cbam.ChannelAttn": [(CHANNELS, IMAGE)],
    "cbam.LightCbamModule": [(CHANNELS, IMAGE)],
    "cbam.LightChannelAttn": [({**CHANNELS, "mlp_bias": True}, IMAGE)],
    "cbam.LightSpatialAttn": [({}, IMAGE)],
    "cbam.SpatialAttn": [({}, IMAGE)],
    "coord_attn.CoordAttn": [(CHANNELS, IMAGE), ({**CHANNELS, "has_skip": True, "norm_layer": None}, IMAGE)],
    "coord_attn.EfficientLocalAttn": [(CHANNELS, IMAGE), ({**CHANNELS, "norm_layer": None, "has_skip": True}, IMAGE)],
    "coord_attn.SimpleCoordAttn": [(CHANNELS, IMAGE), ({**CHANNELS, "has_skip": True}, IMAGE)],
    "coord_attn.StripAttn": [(CHANNELS, IMAGE), ({**CHANNELS, "use_conv": False, "has_skip": True}, IMAGE)],
    "eca.CecaModule": [(CHANNELS, IMAGE)],
    "eca.EcaModule": [({}, IMAGE), ({**CHANNELS, "use_mlp": True}, IMAGE)],
    "gather_excite.GatherExcite": [
        ({**CHANNELS, "use_mlp": False}, IMAGE),
        ({**CHANNELS, "use_mlp": False, "extent": 2, "add_maxpool": True}, IMAGE),
    ],
    "global_context.GlobalContext": [(CHANNELS, IMAGE), ({**CHANNELS, "use_attn": False, "fuse_add": True}, IMAGE)],
    "grn.GlobalResponseNorm": [({"dim": 16}, LAST), ({"dim": 16, "channels_last": False}, IMAGE)],
    "selective_kernel.SelectiveKernel": [
        ({"in_channels": 16}, IMAGE),
        (
            {
                "in_channels": 16,
                "out_channels": 8,
                "stride": 2,
                "kernel_size": [3, 5],
                "keep_3x3": False,
                "split_input": False,
            },
            IMAGE,
        ),
    ],
    "selective_kernel.SelectiveKernelAttn": [(CHANNELS, (B, 2, 16, 8, 8))],
    "split_attn.RadixSoftmax": [
        ({"radix": 2, "cardinality": 2}, (B, 16, 1, 1)),
        ({"radix": 1, "cardinality": 2}, IMAGE),
    ],
    "split_attn.SplitAttn": [
        ({"in_channels": 16}, IMAGE),
        ({"in_channels": 16, "radix": 1, "groups": 2, "norm_layer": nn.BatchNorm2d, "stride": 2}, IMAGE),
    ],
    "squeeze_excite.EffectiveSEModule": [({**CHANNELS, "add_maxpool": True}, IMAGE)],
    "squeeze_excite.SEModule": [
        (CHANNELS, IMAGE),
        ({**CHANNELS, "add_maxpool": True, "norm_layer": nn.BatchNorm2d}, IMAGE),
    ],
    "squeeze_excite.SqueezeExciteCl": [(CHANNELS, LAST)],
}
