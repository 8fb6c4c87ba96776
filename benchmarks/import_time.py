"""Measure what ``import torch_dag_core`` adds to ``import torch``: run with the Python of an environment that has both.

Prints the least time of each over fresh interpreters, run alternately (noise only adds), and what the package adds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

TIMER = "import time; start = time.perf_counter(); import {modules}; print(time.perf_counter() - start)"
LIMIT = 0.15


def import_seconds(modules: str) -> float:
    """Return how long imports take in a fresh interpreter."""
    command = [sys.executable, "-c", TIMER.format(modules=modules)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the least times and what the package adds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    import_seconds("torch, torch_dag_core")  # fills the disk cache and the bytecode caches
    pairs = [(import_seconds("torch"), import_seconds("torch, torch_dag_core")) for _ in range(rounds)]
    torch, package = (min(times) for times in zip(*pairs, strict=True))
    print(f"import torch                  {torch:.3f} s")
    print(f"import torch, torch_dag_core  {package:.3f} s")
    print(f"added                         {package - torch:.3f} s, ratio {package / torch:.3f} (limit {LIMIT} s)")


if __name__ == "__main__":
    main()
