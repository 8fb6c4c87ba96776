"""What an import of the package leaves alone, seen from a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import sys
import torch
before = set(sys.modules)
import torch_dag_core
new = set(sys.modules) - before
print(sorted({name.partition(".")[0] for name in new} | {"torch._dynamo"} & new))
"""


def test_importing_the_package_loads_no_plugin_and_nothing_slow(site):
    site.install("boom", "raise SystemExit('a plugin was imported')")
    path = os.pathsep.join([str(site.root / "sample-boom"), *filter(None, sys.path)])
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    roots = set(eval(result.stdout))
    assert "torch_dag_core" in roots
    assert roots.isdisjoint({"timm", "torchvision", "click", "rich", "torch._dynamo", "sample_module_boom"})
    assert not any(root.startswith("torch_dag_") for root in roots - {"torch_dag_core"})
