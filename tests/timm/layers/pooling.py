"""timm's poolings, those with attention among them."""

import timm
from torch import nn

B = -1
IMAGE, TOKENS = (B, 6, 16, 16), (B, 9, 24)
FLAT = {"flatten": True}
LAST = {"input_fmt": "NHWC"}

LAYERS = {
    "adaptive_avgmax_pool.AdaptiveAvgMaxPool2d": [({}, IMAGE), ({"output_size": 4}, IMAGE)],
    "adaptive_avgmax_pool.AdaptiveCatAvgMaxPool2d": [({}, IMAGE), ({"output_size": (2, 4)}, IMAGE)],
    "adaptive_avgmax_pool.FastAdaptiveAvgMaxPool": [({}, IMAGE), ({**FLAT, **LAST}, IMAGE)],
    "adaptive_avgmax_pool.FastAdaptiveAvgPool": [(FLAT, IMAGE), (LAST, IMAGE)],
    "adaptive_avgmax_pool.FastAdaptiveCatAvgMaxPool": [(FLAT, IMAGE), (LAST, IMAGE)],
    "adaptive_avgmax_pool.FastAdaptiveMaxPool": [({}, IMAGE), ({**FLAT, **LAST}, IMAGE)],
    "adaptive_avgmax_pool.SelectAdaptivePool2d": [
        *[({"pool_type": kind, **FLAT}, IMAGE) for kind in ("fast", "fastmax", "fastavgmax", "fastcatavgmax")],
        *[({"pool_type": kind, "output_size": 2}, IMAGE) for kind in ("avg", "max", "avgmax", "catavgmax")],
        ({"pool_type": "", **FLAT}, IMAGE),
    ],
    "attention_pool.AttentionPoolLatent": [
        ({"in_features": 24, "num_heads": 4}, TOKENS),
        (
            {
                "in_features": 24,
                "num_heads": 4,
                "latent_len": 3,
                "pool_type": "avg",
                "qk_norm": True,
                "norm_layer": nn.LayerNorm,
                "pos_embed": "abs",
                "feat_size": 9,
                "drop": 0.2,
            },
            TOKENS,
        ),
        ({"in_features": 24, "num_heads": 4, "out_features": 0}, TOKENS),
    ],
    "attention_pool.AttentionPoolPrr": [
        ({"dim": 24, "num_heads": 4}, TOKENS),
        ({"dim": 24, "pool_type": "avg", "pre_norm": True, "post_norm": True, "norm_layer": nn.LayerNorm}, TOKENS),
    ],
    "attention_pool2d.AttentionPool2d": [
        ({"in_features": 6, "feat_size": 4, "embed_dim": 8, "num_heads": 2, "head_dim": None}, (B, 6, 4, 4)),
        (
            {
                "in_features": 8,
                "feat_size": 4,
                "embed_dim": 8,
                "num_heads": 2,
                "head_dim": None,
                "qkv_separate": True,
                "class_token": True,
                "out_features": 5,
                "drop_rate": 0.3,
            },
            (B, 8, 4, 4),
        ),
        ({"in_features": 6, "feat_size": 4, "embed_dim": 8, "num_heads": 2, "head_dim": None}, (B, 6, 5, 3)),
    ],
    "attention_pool2d.RotAttentionPool2d": [
        ({"in_features": 6, "ref_feat_size": 4, "embed_dim": 8, "num_heads": 2, "head_dim": None}, (B, 6, 4, 4)),
        (
            {
                "in_features": 8,
                "ref_feat_size": 4,
                "embed_dim": 8,
                "num_heads": 2,
                "head_dim": None,
                "pool_type": "",
                "qkv_separate": True,
                "class_token": True,
                "out_features": 5,
                "drop_rate": 0.3,
            },
            (B, 8, 5, 3),
        ),
    ],
    "blur_pool.BlurPool2d": [
        ({"channels": 6}, IMAGE),
        ({}, IMAGE),
        ({"filt_size": 4, "stride": 3, "pad_mode": "constant"}, IMAGE),
    ],
    "median_pool.MedianPool2d": [({}, IMAGE), ({"kernel_size": (3, 2), "stride": 2, "same": True}, IMAGE)],
    "other_pool.LsePlus1d": [({}, TOKENS), ({"r_learnable": False}, TOKENS)],
    "other_pool.LsePlus2d": [({}, IMAGE), ({"flatten": False}, IMAGE)],
    "other_pool.SimPool1d": [({"dim": 24, "num_heads": 4, "qk_norm": True, "norm_layer": nn.LayerNorm}, TOKENS)],
    "other_pool.SimPool2d": [({"dim": 6, "num_heads": 2, "gamma": 2.0}, IMAGE)],
    "pool2d_same.AvgPool2dSame": [({"kernel_size": 3, "stride": 2}, IMAGE)],
    "pool2d_same.MaxPool2dSame": [({"kernel_size": 3, "stride": 2, "dilation": 2}, IMAGE)],
    "test_time_pool.TestTimePoolHead": [
        ({"base": timm.create_model("test_resnet", num_classes=5), "original_pool": 2}, (B, 3, 96, 96)),
    ],
}
