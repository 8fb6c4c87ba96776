"""Algorithms as plugins offer them: found by name, configured, bound to a graph."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, Losses, algorithms, find_algorithm
from torch_dag_core.errors import AlgorithmError, SettingsError, StubError, TorchDagError, UnknownAlgorithmError

pytestmark = pytest.mark.usefixtures("installed")


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass
class Changeable:
    pass


def test_algorithms_are_listed_by_name_with_their_distribution():
    assert list(algorithms()) == ["impostor", "learned-thinning", "thinning", "unfinished"]
    assert {spec.owner for spec in algorithms().values()} == {"sample-thinning"}


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownAlgorithmError, match="no algorithm is called 'thining'; did you mean 'thinning'"):
        find_algorithm("thining")


def test_an_unknown_name_without_anything_close_gets_the_list():
    with pytest.raises(UnknownAlgorithmError, match="it has: impostor, learned-thinning, thinning, unfinished"):
        find_algorithm("zzz")


def test_settings_are_the_fields_of_the_config():
    settings = find_algorithm("thinning").settings()
    assert {name: setting.default for name, setting in settings.items()} == {
        "keep": 0, "classes": ("Tanh",), "scale": None, "loud": False,
    }  # fmt: skip
    assert settings["keep"].help == "how many stay"
    assert settings["scale"].hint == float | None
    assert find_algorithm("unfinished").settings()["share"].required


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("thinning", {"kep": 1}, "thinning has no setting 'kep'; did you mean 'keep'?"),
        ("thinning", {"keep": -1}, "thinning: keep must be at least 0, got -1"),
        ("unfinished", {}, r"unfinished needs share=\.\.\."),
    ],
)
def test_wrong_settings_are_one_error(name, settings, message):
    with pytest.raises(SettingsError, match=message):
        find_algorithm(name).configure(**settings)


def test_what_the_graph_cannot_give_is_refused_at_the_start(dag):
    with pytest.raises(SettingsError, match="thinning: the graph has only 2 such vertices"):
        find_algorithm("thinning").start(dag, keep=3)


def test_a_config_and_settings_exclude_each_other(dag):
    spec = find_algorithm("thinning")
    with pytest.raises(SettingsError, match="either a Settings or settings by name"):
        spec.start(dag, spec.configure(), keep=1)
    with pytest.raises(SettingsError, match="either a Settings or settings by name"):
        spec.start(dag, Nothing())


def test_what_a_plugin_creates_must_have_all_steps(dag):
    with pytest.raises(AlgorithmError, match=r"impostor of sample-thinning created a list, which has no analyze\(\)"):
        find_algorithm("impostor").start(dag)


def test_the_four_steps_change_a_copy_only(dag):
    before = str(dag)
    algorithm = find_algorithm("thinning").start(dag, keep=1)
    assert algorithm.analyze().removable_share == pytest.approx(0.2)
    algorithm.prepare()
    assert algorithm.losses(0).total() == 0
    after = algorithm.finalize()
    assert str(dag) == before
    assert [vertex.name for vertex in after.inner_vertices] == ["linear", "tanh", "linear1"]


def test_losses_are_named_terms_whose_sum_can_be_differentiated():
    weight = torch.tensor(1.0, requires_grad=True)
    losses = Losses(torch.tensor(0.5), {"flops": weight, "entropy": 2 * weight, "distillation": 4 * weight})
    assert losses.total() == 7
    losses.total().backward()
    assert weight.grad == 7
    assert Losses(torch.tensor(0.5)).total() == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"config": Changeable}, ValueError, "must be a frozen dataclass"),
        ({"config": int}, ValueError, "must be a frozen dataclass"),
        ({"status": "wip"}, ValueError, "must be one of stable, experimental, stub, got 'wip'"),
        ({"name": "two words"}, TypeError, "name of AlgorithmSpec must be a name such as"),
        ({"create": None}, TypeError, "create of AlgorithmSpec must be callable"),
    ],
)
def test_a_spec_refuses_what_no_user_could_use(change, error, message):
    given = {"name": "sample", "summary": "", "config": Nothing, "create": dict, **change}
    with pytest.raises(error, match=message):
        AlgorithmSpec(**given)


def test_a_stub_error_is_both_ours_and_pythons():
    error = StubError("sample", "finalize", "a decision")
    assert isinstance(error, NotImplementedError)
    assert isinstance(error, TorchDagError)
    assert str(error) == "sample is a stub: finalize() does not exist yet, it needs a decision; analyze() works"


def test_no_algorithms_at_all(none_installed):
    assert algorithms() == {}
    with pytest.raises(UnknownAlgorithmError, match="no installed plugin offers any"):
        find_algorithm("thinning")
