"""The command ``torch-dag prune``: ``torch-dag run channel-pruning`` under a shorter name."""

from __future__ import annotations

from torch_dag_core.cli.examples import example
from torch_dag_core.cli.run import algorithm_command
from torch_dag_pruning.one_shot_spec import SPEC

prune = algorithm_command(
    SPEC,
    name="prune",
    text="Remove the least important channels of MODEL and save what is left.\n\n"
    "Nothing is trained. With --calibrate, the weights that are left are repaired so that the outputs stay close to "
    "those of MODEL, which needs a few hundred samples without labels. The same as `torch-dag run channel-pruning`.",
    needs_out=True,
    epilog=example("torch-dag prune timm:resnet18 --keep-flops 0.7 --out resnet18_70.safetensors"),
)
