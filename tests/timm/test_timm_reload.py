"""Saved graphs of timm models reload where neither timm nor torchvision can be imported."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

from torch_dag_core.serialization import save

MODELS = {
    "efficientnet_b0": {},
    "tf_efficientnet_b0": {},
    "regnety_002": {},
    "convnextv2_atto": {},
    "vit_tiny_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 64},
    "levit_128s": {"img_size": 64},
    "mixer_s16_224": {"img_size": 64},
}
SCRIPT = """
import sys
from pathlib import Path

sys.modules["timm"] = sys.modules["torchvision"] = sys.modules["torch_dag_timm"] = None

import torch
from safetensors.torch import load_file, save_file
from torch_dag_core.serialization import load

folder = Path(sys.argv[1])
image = load_file(folder / "image.safetensors")["image"]
for file in sorted(folder.glob("*.dag.safetensors")):
    dag = load(file)
    outputs = {}
    for training in (False, True):
        torch.manual_seed(1)
        outputs["training" if training else "evaluation"] = dag.train(training)(image).detach()
    save_file(outputs, folder / file.name.replace(".dag.", ".out."))
"""


def test_saved_graphs_reload_without_timm(make, convert, tmp_path):
    image = torch.randn(4, 3, 64, 64)
    save_file({"image": image}, tmp_path / "image.safetensors")
    expected = {}
    for name, options in MODELS.items():
        dag = convert(make(name, **options), image)
        save(dag, tmp_path / f"{name}.dag.safetensors")
        for training in (False, True):
            torch.manual_seed(1)
            expected[name, training] = dag.train(training)(image).detach()
    environment = {**os.environ, "TORCH_DAG_PLUGINS": "", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if "torch_dag_core" in path)
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, env=environment)
    for (name, training), output in expected.items():
        found = load_file(tmp_path / f"{name}.out.safetensors")["training" if training else "evaluation"]
        assert output.std() > 0
        torch.testing.assert_close(found, output, rtol=0, atol=0)
