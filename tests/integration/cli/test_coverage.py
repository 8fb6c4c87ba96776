"""``torch-dag coverage`` on timm, with every plugin: nothing may fail."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app
from torch_dag_core.cli.coverage.record import CoverageFile

TINY = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet", "test_mambaout")
SMALL = 60

pytest.importorskip("timm")


def survey(out, *options):
    result = CliRunner().invoke(app, ["coverage", "timm", "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    return CoverageFile.read(out)


def assert_all_pass(rows):
    assert {row["model"]: row["failures"] for row in rows if row["failures"]} == {}
    for row in rows:
        assert row["reload"] == {"graph": "equal", "pruned": "equal"}, row["model"]
        assert 0.2 < row["channels"]["removable"] <= 1.0
        assert 0.0 < row["cut"]["flops_left"] < 1.0


def test_tiny_models_pass_every_step(tmp_path):
    filters = [option for name in TINY for option in ("--filter", name)]
    rows = survey(tmp_path / "timm.jsonl", *filters).rows
    assert rows.keys() == set(TINY)
    assert_all_pass(rows.values())


@pytest.mark.heavy
def test_small_models_pass_every_step(tmp_path):
    file = survey(tmp_path / "timm.jsonl", "--max-parameters", "5.2", "--shard", "2/2")
    assert len(file.rows) >= SMALL
    assert_all_pass(file.rows.values())
