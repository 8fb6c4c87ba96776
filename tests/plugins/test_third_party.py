"""A stranger's plugin, built, installed beside ours, and used by a project that imports neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EVERYTHING = ("core", "timm", "pruning", "acme", "downstream")
RENAMED = {
    "modules": {
        "width: int, limit: float = 2.0": "width: int, bound: float = 2.0",
        "self.width, self.limit = width, limit": "self.width, self.bound = width, bound",
        "self.limit": "self.bound",
        "clip.limit": "clip.bound",
    },
}
MIGRATION = """    examples=clip_examples,
    version=2,
    migrate=lambda version, config: {"width": config["width"], "bound": config["limit"]},
)"""


@pytest.fixture(scope="module")
def saved(environments, tmp_path_factory):
    """A graph with the plugin's ops, saved where it is installed, and what was found on the way."""
    file = tmp_path_factory.mktemp("saved") / "net.safetensors"
    return file, environments(*EVERYTHING).step("convert", file)


def test_every_distribution_takes_part(environments):
    found = environments(*EVERYTHING).step("installed", "-")
    assert {name: text for name, text in found["plugins"].items() if not text.endswith(" None")} == {}
    assert found["plugins"]["acme"] == "acme-torch-dag 1.0 None"
    assert "acme-rounding" in found["algorithms"]


def test_a_model_becomes_a_graph_of_the_plugins_ops(saved):
    _, found = saved
    assert found["ops"] == ["core.linear", "acme.outlier_clip", "acme.snake", "core.linear"]
    assert found["dag"] == found["model"]


def test_a_graph_loads_where_the_plugin_is(environments, saved):
    file, found = saved
    assert environments(*EVERYTHING).step("load", file) == {"dag": found["dag"]}


def test_the_plugins_command_runs(environments, saved):
    assert environments(*EVERYTHING).run("torch-dag", "acme-count", saved[0]).stdout == "2\n"


def test_the_plugins_algorithm_runs(environments, saved):
    found = environments(*EVERYTHING).step("compress", saved[0])
    assert found["candidates"] == ["first", "last"]
    assert all(value == round(value) for rows in found["weights"].values() for row in rows for value in row)


def test_the_plugins_ops_are_pruned_by_its_criterion(environments, saved):
    file, _ = saved
    found = environments(*EVERYTHING).step("prune", file)
    assert found["orbits"] == [8]
    width = found["shapes"]["first.weight"][0]
    assert 0 < width < 8
    assert (found["shapes"]["clip.scale"], found["shapes"]["last.weight"]) == ([width], [3, width])
    again = environments(*EVERYTHING).step("load", f"{file}.pruned.safetensors")
    assert again == {"dag": found["dag"]}


def test_the_plugins_own_tests_pass(environments, tmp_path):
    folder = Path(__file__).parent / "third_party" / "tests"
    result = environments(*EVERYTHING).run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path, folder
    )
    assert " passed" in result.stdout


def test_without_the_plugin_the_error_says_what_to_install(environments, saved):
    error = environments("core", "downstream").step("load", saved[0])["error"]
    assert error == (
        "vertex 'clip' uses the op 'acme.outlier_clip', which is not registered here; install 'acme-torch-dag' 1.0"
    )


def test_a_switched_off_plugin_is_named_and_not_imported(environments, saved):
    result = environments(*EVERYTHING).run("python", "-m", "downstream", "load", saved[0], TORCH_DAG_PLUGINS="timm")
    found = json.loads(result.stdout)
    assert "its plugin 'acme' is installed, but switched off by TORCH_DAG_PLUGINS" in found["error"]
    assert found["imported"] == []


def test_a_newer_plugin_migrates(environments, saved, changed_acme):
    newer = changed_acme("1.1", **RENAMED, ops={"    examples=clip_examples,\n)": MIGRATION})
    file, found = saved
    assert environments("core", newer, "downstream").step("load", file) == {"dag": found["dag"]}


def test_a_newer_plugin_that_cannot_migrate_is_named_with_what_it_wants(environments, saved, changed_acme):
    newer = changed_acme("2.0", **RENAMED, ops={"    examples=clip_examples,\n)": "    version=2,\n)"})
    error = environments("core", newer, "downstream").step("load", saved[0])["error"]
    assert error == (
        "the op 'acme.outlier_clip' has version 1 in the file, 2 here, and 'acme-torch-dag' cannot read the older "
        "one; install 'acme-torch-dag' 1.0 as it was when the file was written"
    )


def test_a_config_that_changed_in_silence_is_an_error_that_says_what_changed(environments, saved, changed_acme):
    newer = changed_acme("3.0", **RENAMED)
    error = environments("core", newer, "downstream").step("load", saved[0])["error"]
    assert error == (
        "vertex 'clip': no 'acme.outlier_clip' of 'acme-torch-dag' 3.0 can be built from {'limit': 2.0, 'width': 8}: "
        "OutlierClip has no constant named 'limit' (the file was written with 'acme-torch-dag' 1.0, here is "
        "'acme-torch-dag' 3.0)"
    )


def test_a_file_of_a_newer_plugin_asks_for_that(environments, tmp_path, saved, changed_acme):
    newer = changed_acme("1.1", **RENAMED, ops={"    examples=clip_examples,\n)": MIGRATION})
    file = tmp_path / "newer.safetensors"
    environments("core", newer, "downstream").step("convert", file)
    error = environments(*EVERYTHING).step("load", file)["error"]
    assert error == "the op 'acme.outlier_clip' has version 2 in the file, 1 here; upgrade 'acme-torch-dag' 1.1"
