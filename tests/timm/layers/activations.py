"""timm's activations."""

B = -1
TOKENS = (B, 7, 12)

LAYERS = {
    name: [({}, TOKENS)]
    for name in (
        "activations.GELU", "activations.GELUTanh", "activations.HardMish", "activations.HardSigmoid",
        "activations.HardSwish", "activations.Mish", "activations.PReLU", "activations.QuickGELU",
        "activations.Sigmoid", "activations.Swish", "activations.Tanh", "activations_me.HardMishMe",
        "activations_me.HardSigmoidMe", "activations_me.HardSwishMe", "activations_me.MishMe",
        "activations_me.SwishMe",
    )
}  # fmt: skip
LAYERS |= {
    f"activations.{name}": [({}, TOKENS), ({"inplace": True}, TOKENS)]
    for name in ("HardMish", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Swish", "Tanh")
}
