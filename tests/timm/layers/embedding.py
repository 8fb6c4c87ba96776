"""timm's embeddings of patches and positions."""

from torch import nn

B = -1
IMAGE = (B, 3, 32, 32)
PATCH = {"img_size": 32, "patch_size": 8, "embed_dim": 12}
ANY = {**PATCH, "strict_img_size": False}
BACKBONE = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.ReLU())
HYBRID = {"backbone": BACKBONE, "img_size": 32, "embed_dim": 12}
ROPE, ROTATED = {"dim": 16}, (B, 16, 4, 5)
WINDOW, SCORES = {"window_size": (3, 3), "num_heads": 2}, (B, 2, 9, 9)

LAYERS = {
    "hybrid_embed.HybridEmbed": [(HYBRID, IMAGE), ({**HYBRID, "patch_size": 2, "output_fmt": "NHWC"}, IMAGE)],
    "hybrid_embed.HybridEmbedWithSize": [(HYBRID, IMAGE)],
    "patch_dropout.PatchDropout": [
        ({"prob": 0.4}, (B, 11, 8)),
        ({"prob": 0.4, "ordered": True, "num_prefix_tokens": 0}, (B, 11, 8)),
    ],
    "patch_dropout.PatchDropoutWithIndices": [({"prob": 0.4}, (B, 11, 8))],
    "patch_embed.PatchEmbed": [
        (PATCH, IMAGE),
        ({**PATCH, "norm_layer": nn.LayerNorm, "bias": False, "output_fmt": "NHWC"}, IMAGE),
        ({**ANY, "flatten": False}, (B, 3, 16, 40)),
        ({**ANY, "dynamic_img_pad": True}, (B, 3, 30, 41)),
        ({**ANY, "img_size": None}, (B, 3, 16, 40)),
    ],
    "patch_embed.PatchEmbedInterpolator": [
        ({"base_patch_size": (4, 4), "embed_dim": 5}, (B, 7, 4, 4, 3), (5, 48), (5,), [4, 4]),
        ({"base_patch_size": (4, 4), "embed_dim": 5}, (B, 7, 6, 5, 3), (5, 48), (5,), [6, 5]),
    ],
    "patch_embed.PatchEmbedResamplerFixedOrigSize": [({"orig_size": (4, 4)}, (B, 3, 4, 4), [6, 5])],
    "patch_embed.PatchEmbedWithSize": [(PATCH, IMAGE)],
    "pos_embed_rel.RelPosBias": [(WINDOW, SCORES), ({**WINDOW, "prefix_tokens": 1}, (B, 2, 10, 10), (B, 2, 10, 10))],
    "pos_embed_rel.RelPosBiasTf": [(WINDOW, SCORES)],
    "pos_embed_rel.RelPosMlp": [(WINDOW, SCORES), ({**WINDOW, "mode": "swin", "prefix_tokens": 1}, (B, 2, 10, 10))],
    "pos_embed_sincos.FourierEmbed": [
        ({"num_bands": 3}, ROTATED),
        ({"num_bands": 3, "keep_spatial": True}, (B, 16, 4, 4)),
    ],
    "pos_embed_sincos.RotaryEmbedding": [
        (ROPE, ROTATED),
        ({**ROPE, "feat_shape": [4, 5], "in_pixels": False}, ROTATED),
    ],
    "pos_embed_sincos.RotaryEmbeddingCat": [
        (ROPE, ROTATED),
        ({**ROPE, "feat_shape": [4, 5], "rotate_half": True}, ROTATED),
    ],
    "pos_embed_sincos.RotaryEmbeddingDinoV3": [
        (ROPE, ROTATED),
        ({**ROPE, "feat_shape": [4, 5], "rescale_coords": 2.0}, ROTATED),
    ],
    "pos_embed_sincos.RotaryEmbeddingMixed": [
        ({"dim": 16, "depth": 2, "num_heads": 2}, ROTATED),
        ({"dim": 16, "depth": 2, "num_heads": 2, "feat_shape": [4, 5]}, ROTATED),
    ],
}
