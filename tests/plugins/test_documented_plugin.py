"""The plugin on the page about plugins, extracted, built, installed and run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
SCRIPT = """
import sys
import torch
import torch_dag_core as td
from torch_dag_gate import Gate
from torch import nn

model = nn.Sequential(nn.Linear(4, 4), Gate(4), nn.Linear(4, 2))
dag = td.build_from_unstructured_module(model, torch.randn(2, 4))
td.save(dag, sys.argv[1])
for x in (torch.ones(3, 4), -torch.ones(3, 4)):
    assert torch.equal(td.load(sys.argv[1])(x), model(x))
print(type(dag.inner_vertices[1].module).__name__)
"""


def test_the_documented_plugin_works(environments, run_contract, tmp_path):
    package = tmp_path / "gate"
    package.mkdir()
    for name, text in re.findall(r'^```\w+ title="(\w+\.\w+)"\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL):
        (package / name).write_text(text)
    environment = environments("core", "pruning", package)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert environment.run("python", script, tmp_path / "graph.safetensors").stdout == "Gate\n"
    results = run_contract(environment, "gate")
    assert "gate.gate-1-prunes] PASSED" in results
