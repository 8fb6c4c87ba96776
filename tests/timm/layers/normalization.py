"""timm's norms, with and without an activation inside."""

from torch import nn

from torch_dag_core.errors import InputError

B = -1
IMAGE, LAST = (B, 8, 8, 8), (B, 6, 6, 8)
EIGHT, GROUPED = {"num_features": 8}, {"num_features": 8, "groups": 4}
CHANNELS, SILU = {"num_channels": 8}, {"num_channels": 8, "act_layer": nn.SiLU}

LAYERS = {
    "evo_norm.EvoNorm2dB0": [(EIGHT, IMAGE), ({**EIGHT, "momentum": 0.3, "eps": 0.1}, IMAGE)],
    "evo_norm.EvoNorm2dB1": [(EIGHT, IMAGE), ({**EIGHT, "momentum": 0.3, "eps": 0.1}, IMAGE)],
    "evo_norm.EvoNorm2dB2": [(EIGHT, IMAGE), ({**EIGHT, "momentum": 0.3, "eps": 0.1}, IMAGE)],
    "evo_norm.EvoNorm2dS0": [(GROUPED, IMAGE), ({**EIGHT, "group_size": 2, "apply_act": False}, IMAGE)],
    "evo_norm.EvoNorm2dS0a": [(GROUPED, IMAGE), ({**EIGHT, "group_size": 2, "apply_act": False}, IMAGE)],
    "evo_norm.EvoNorm2dS1": [(GROUPED, IMAGE), ({**GROUPED, "act_layer": nn.GELU}, IMAGE)],
    "evo_norm.EvoNorm2dS1a": [(GROUPED, IMAGE), ({**GROUPED, "apply_act": False}, IMAGE)],
    "evo_norm.EvoNorm2dS2": [(GROUPED, IMAGE), ({**GROUPED, "act_layer": nn.GELU}, IMAGE)],
    "evo_norm.EvoNorm2dS2a": [(GROUPED, IMAGE), ({**GROUPED, "apply_act": False}, IMAGE)],
    "filter_response_norm.FilterResponseNormAct2d": [
        (EIGHT, IMAGE),
        ({**EIGHT, "rms": False, "act_layer": nn.SiLU}, IMAGE),
    ],
    "filter_response_norm.FilterResponseNormTlu2d": [
        (EIGHT, IMAGE),
        ({**EIGHT, "rms": False, "apply_act": False}, IMAGE),
    ],
    "layer_scale.LayerScale": [
        ({"dim": 8, "init_values": 0.3}, LAST),
        ({"dim": 8, "init_values": 0.3, "inplace": True}, LAST),
    ],
    "layer_scale.LayerScale2d": [
        ({"dim": 8, "init_values": 0.3}, IMAGE),
        ({"dim": 8, "init_values": 0.3, "inplace": True}, IMAGE),
    ],
    "norm.GroupNorm": [({**CHANNELS, "num_groups": 4}, IMAGE)],
    "norm.GroupNorm1": [(CHANNELS, IMAGE)],
    "norm.LayerNorm": [(CHANNELS, LAST), ({**CHANNELS, "affine": False}, LAST)],
    "norm.LayerNorm2d": [(CHANNELS, IMAGE)],
    "norm.LayerNorm2dFp32": [(CHANNELS, IMAGE)],
    "norm.LayerNormExp2d": [(CHANNELS, IMAGE)],
    "norm.LayerNormFp32": [(CHANNELS, LAST)],
    "norm.RmsNorm": [({"channels": 8}, LAST), ({"channels": 8, "affine": False}, LAST)],
    "norm.RmsNorm2d": [({"channels": 8}, IMAGE)],
    "norm.RmsNorm2dFp32": [({"channels": 8}, IMAGE)],
    "norm.RmsNormFp32": [({"channels": 8}, LAST)],
    "norm.SimpleNorm": [({"channels": 8}, LAST)],
    "norm.SimpleNorm2d": [({"channels": 8}, IMAGE)],
    "norm.SimpleNorm2dFp32": [({"channels": 8}, IMAGE)],
    "norm.SimpleNormFp32": [({"channels": 8}, LAST)],
    "norm_act.BatchNormAct2d": [(EIGHT, IMAGE)],
    "norm_act.FrozenBatchNormAct2d": [(EIGHT, IMAGE)],
    "norm_act.GroupNorm1Act": [(SILU, IMAGE)],
    "norm_act.GroupNormAct": [
        ({**SILU, "num_groups": 4}, IMAGE),
        ({**CHANNELS, "group_size": 2, "apply_act": False}, IMAGE),
    ],
    "norm_act.LayerNormAct": [
        ({"normalization_shape": 8}, LAST),
        ({"normalization_shape": 8, "act_layer": nn.SiLU}, LAST),
    ],
    "norm_act.LayerNormAct2d": [(CHANNELS, IMAGE), (SILU, IMAGE)],
    "norm_act.LayerNormAct2dFp32": [(SILU, IMAGE)],
    "norm_act.LayerNormActFp32": [({"normalization_shape": 8}, LAST)],
    "norm_act.RmsNormAct": [(SILU, LAST)],
    "norm_act.RmsNormAct2d": [(SILU, IMAGE)],
    "norm_act.RmsNormAct2dFp32": [(SILU, IMAGE)],
    "norm_act.RmsNormActFp32": [(SILU, LAST)],
    "norm_act.SyncBatchNormAct": [(EIGHT, IMAGE)],
    "split_batchnorm.SplitBatchNorm2d": [(EIGHT, IMAGE)],
}
REFUSED = {
    "inplace_abn.InplaceAbn": ("the model failed while it was traced, .*: Please install InplaceABN", EIGHT, IMAGE),
}
# A batch that the splits do not divide is refused in evaluation too, where the layer would take it.
UNTIL_FIXED = {("converts", "split_batchnorm.SplitBatchNorm2d-0"): InputError}
