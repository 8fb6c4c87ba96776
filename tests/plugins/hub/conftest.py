"""Small graphs, and a hub on this machine for the tests that need one."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_core.testing import awaken


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.mix = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.mix(self.norm(self.conv(x)).relu()).relu().mean((2, 3)))


@pytest.fixture
def dag():
    torch.manual_seed(0)
    return td.build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 3, 16, 16))


@pytest.fixture
def pruned(dag):
    pruning = tdp.OneShotChannelPruning(dag, None, 0.5)
    pruning.calibrate([torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))])
    return pruning.finalize()


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def hub():
    LoopbackHub = runpy.run_path(str(Path(__file__).with_name("loopback_hub.py")))["LoopbackHub"]
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def on_hub(hub, tmp_path):
    """Run a script that takes the loopback device for the Hub; its last lines are those that it prints."""

    def run(script, fails=False):
        outside = ("HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")
        environment = {
            **{name: value for name, value in os.environ.items() if name not in outside},
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_loopback",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run
