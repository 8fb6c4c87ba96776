"""timm's perceptrons, heads, and what drops parts of an activation."""

from torch import nn

B = -1
TOKENS, IMAGE, LAST = (B, 9, 8), (B, 8, 6, 6), (B, 6, 6, 8)
MLP = {"in_features": 8, "hidden_features": 12, "drop": 0.2}
CONV = {**MLP, "use_conv": True}
HEAD = {"in_features": 8, "num_classes": 5, "drop_rate": 0.2}

LAYERS = {
    "classifier.ClNormMlpClassifierHead": [(HEAD, LAST), ({**HEAD, "hidden_size": 6, "pool_type": ""}, LAST)],
    "classifier.ClassifierHead": [
        (HEAD, IMAGE),
        ({**HEAD, "pool_type": "catavgmax", "use_conv": False}, IMAGE),
        ({**HEAD, "input_fmt": "NHWC", "pool_type": "max"}, LAST),
    ],
    "classifier.NormMlpClassifierHead": [(HEAD, IMAGE), ({**HEAD, "hidden_size": 6}, IMAGE)],
    "drop.DropBlock2d": [
        ({"drop_prob": 0.4, "block_size": 3}, IMAGE),
        ({"drop_prob": 0.4, "block_size": 4, "inplace": True, "couple_channels": False, "scale_by_keep": False}, IMAGE),
        ({"drop_prob": 0.4, "block_size": 3, "with_noise": True}, IMAGE),
    ],
    "drop.DropPath": [({"drop_prob": 0.4}, TOKENS)],
    "linear.Linear": [({"in_features": 8, "out_features": 5}, TOKENS)],
    "mlp.ConvMlp": [(MLP, IMAGE), ({**MLP, "norm_layer": nn.BatchNorm2d}, IMAGE)],
    "mlp.GatedMlp": [(MLP, TOKENS)],
    "mlp.GlobalResponseNormMlp": [(MLP, LAST), (CONV, IMAGE)],
    "mlp.GluMlp": [(MLP, TOKENS), ({**CONV, "gate_last": False}, IMAGE)],
    "mlp.Mlp": [({**MLP, "norm_layer": nn.LayerNorm}, TOKENS), (CONV, IMAGE)],
    "mlp.SwiGLU": [({**MLP, "norm_layer": nn.LayerNorm, "align_to": 8}, TOKENS)],
}
