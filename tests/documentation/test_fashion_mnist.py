"""The accuracy benchmark runs end to end: data, bases, rows, tables and the plot."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ONLY = (
    "no training/resnet/0/ours/0.5",
    "no training/vit/0/Torch-Pruning taylor/0.5",
    "no training/vit/0/Torch-Pruning hessian/0.25",
    "fine-tuned/vit/0/ours/0.5",
    "fine-tuned, distilled/resnet/0/from scratch/0.1",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images in the files that torchvision reads."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    for part, count in (("train", 256), ("t10k", 100)):
        images = torch.randint(256, (count, 28, 28), generator=random, dtype=torch.uint8)
        labels = torch.randint(10, (count,), generator=random, dtype=torch.uint8)
        head = struct.pack(">iiii", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.numpy().tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, count) + labels.numpy().tobytes())
    return root


def test_rows_are_computed_once_and_rendered(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.fashion_mnist.__main__ import main
    from benchmarks.fashion_mnist.report import SCRIPT
    from benchmarks.pages import markers

    rows = tmp_path / "rows.jsonl"
    options = ["--epochs", "1", "--tuning-epochs", "1", "--samples", "64", "--seeds", "0", "--rows", str(rows)]
    command = ["run", "--root", str(data), "--bases", str(tmp_path / "bases"), *options, "--only", *ONLY]
    main([*command, "--shard", "1/2"])
    main(command)
    first = rows.read_text()
    main(command)
    assert rows.read_text() == first
    found = [json.loads(line) for line in first.splitlines()]
    assert len(found) == len(ONLY)
    assert all(0 < row["flops"] <= row["share"] for row in found)

    begin, end = markers(SCRIPT)
    page, plot = tmp_path / "page.md", tmp_path / "plot.svg"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    main(["report", "--rows", str(rows), "--page", str(page), "--plot", str(plot)])
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "\nold\n" not in written
    assert "| ours | " in written
    assert "<svg" in plot.read_text()
