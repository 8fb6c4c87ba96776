"""timm's attention over tokens and over images."""

from torch import nn

B = -1
IMAGE, TOKENS, WIDE = (B, 16, 8, 8), (B, 9, 24), (B, 64, 8, 8)
ROPE = (9, 12)

LAYERS = {
    "attention.Attention": [
        ({"dim": 24, "num_heads": 4, "qkv_bias": True}, TOKENS),
        ({"dim": 24, "num_heads": 4, "gated": True, "attn_drop": 0.2, "proj_drop": 0.2}, TOKENS),
        ({"dim": 24, "num_heads": 4}, TOKENS, (B, 1, 9, 9)),
    ],
    "attention.AttentionRope": [
        ({"dim": 24, "num_heads": 4}, TOKENS),
        ({"dim": 24, "num_heads": 4}, TOKENS, (8, 12)),
        (
            {
                "dim": 24,
                "num_heads": 4,
                "qkv_fused": False,
                "qk_norm": True,
                "norm_layer": nn.LayerNorm,
                "num_prefix_tokens": 0,
                "attn_drop": 0.2,
                "rotate_half": True,
            },
            TOKENS,
            (9, 12),
            (B, 1, 9, 9),
        ),
    ],
    "attention2d.Attention2d": [
        ({"dim": 16, "num_heads": 4, "attn_drop": 0.2}, IMAGE),
        ({"dim": 16, "dim_out": 24, "num_heads": 4, "expand_first": True, "head_first": True}, IMAGE),
    ],
    "attention2d.MultiQueryAttention2d": [
        ({"dim": 16, "num_heads": 4}, IMAGE),
        ({"dim": 16, "num_heads": 4, "query_strides": 2, "kv_stride": 2, "attn_drop": 0.2, "padding": "same"}, IMAGE),
        ({"dim": 16, "num_heads": 4, "proj_drop": 0.2}, IMAGE),
    ],
    "attention2d.MultiQueryAttentionV2": [({"dim": 16, "num_heads": 4, "key_dim": 6, "value_dim": 5}, IMAGE)],
    "bottleneck_attn.BottleneckAttn": [
        ({"dim": 16, "feat_size": (8, 8)}, IMAGE),
        (
            {"dim": 16, "dim_out": 24, "feat_size": (8, 8), "stride": 2, "qkv_bias": True, "scale_pos_embed": True},
            IMAGE,
        ),
    ],
    "bottleneck_attn.PosEmbedRel": [({"feat_size": (3, 4), "dim_head": 6, "scale": 0.3}, (B, 12, 6))],
    "diff_attention.DiffAttention": [
        ({"dim": 24, "num_heads": 2, "attn_drop": 0.2}, TOKENS),
        ({"dim": 24, "num_heads": 2, "dual_lambda": True, "qk_norm": True, "norm_layer": nn.LayerNorm}, TOKENS),
    ],
    "halo_attn.HaloAttn": [
        ({"dim": 16, "num_heads": 2, "block_size": 4, "halo_size": 1}, IMAGE),
        ({"dim": 16, "num_heads": 2, "block_size": 4, "halo_size": 1, "stride": 2, "scale_pos_embed": True}, IMAGE),
        ({"dim": 16, "num_heads": 2, "block_size": 4, "halo_size": 1, "stride": 2, "avg_down": True}, IMAGE),
    ],
    "halo_attn.PosEmbedRel": [({"block_size": 2, "win_size": 4, "dim_head": 6, "scale": 0.3}, (B, 3, 4, 6))],
    "lambda_layer.LambdaLayer": [
        ({"dim": 16, "r": 3}, IMAGE),
        ({"dim": 16, "feat_size": (8, 8), "stride": 2, "r": None, "qkv_bias": True}, IMAGE),
    ],
    "ml_decoder.TransformerDecoderLayerOptimal": [
        ({"d_model": 16, "nhead": 4, "dim_feedforward": 8}, (B, 3, 16), (7, 3, 16)),
    ],
    "non_local_attn.BatNonLocalAttn": [({"in_channels": 16, "block_size": 4}, IMAGE)],
    "non_local_attn.BilinearAttnTransform": [({"in_channels": 16, "block_size": 4, "groups": 2}, IMAGE)],
    "non_local_attn.NonLocalAttn": [({"in_channels": 16}, IMAGE), ({"in_channels": 16, "use_scale": False}, IMAGE)],
}
REFUSED = {
    "ml_decoder.MLDecoder": (
        "the model failed while it was traced, .* has no attribute 'self_attn'",  # with this release of torch
        {"num_classes": 10, "num_of_groups": 4, "decoder_embedding": 16, "initial_num_features": 16},
        IMAGE,
    ),
}
# What a dropout draws for which element follows its operand's layout in memory, and contiguous() changed that.
UNTIL_FIXED = {("converts", "attention2d.MultiQueryAttention2d-2"): AssertionError}
