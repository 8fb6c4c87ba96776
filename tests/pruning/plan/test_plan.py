"""Plans as data: made, edited, compared, written and read."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from torch_dag_pruning.axes import Atom
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.plan import Plan


@dataclass
class FakeAnalysis:
    """Two layers: FLOPs are the product of their widths, plus what cannot go."""

    fixed: float = 100.0
    minimum: int = 0
    orbits: list = field(init=False)
    relations: dict = field(default_factory=dict)
    dag: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(inner_vertices=()))

    def __post_init__(self):
        self.orbits = [
            SimpleNamespace(key="a.weight:0", n=32, minimum=self.minimum, atom=Atom(4, 32)),
            SimpleNamespace(key="b.weight:0", n=20, minimum=self.minimum, atom=Atom(7, 20)),
        ]

    def cost(self, counts=None):
        counts = counts or {4: 32, 7: 20}
        return self.fixed + counts[4] * counts[7]


@dataclass(frozen=True)
class Rising:
    name: str = "rising"

    def score(self, analysis):
        return {orbit.key: torch.arange(orbit.n) + 1.0 for orbit in analysis.orbits}


@pytest.fixture
def analysis():
    return FakeAnalysis()


@pytest.fixture
def plan(analysis):
    return Plan.random(analysis, 0.5, seed=1)


def test_random_keeps_the_rounded_share_of_each_orbit(plan):
    assert plan.counts() == {"a.weight:0": 16, "b.weight:0": 10}


def test_random_is_the_same_for_the_same_seed_and_differs_for_others(analysis, plan):
    assert Plan.random(analysis, 0.5, seed=1) == plan
    assert Plan.random(analysis, 0.5, seed=2) != plan


def test_random_respects_minimum_and_never_empties_an_orbit():
    assert Plan.random(FakeAnalysis(minimum=3), 0.0).counts() == {"a.weight:0": 3, "b.weight:0": 3}
    assert Plan.random(FakeAnalysis(), 0.0).counts() == {"a.weight:0": 1, "b.weight:0": 1}


@pytest.mark.parametrize("keep", [-0.1, 1.5])
def test_random_refuses_what_is_no_fraction(analysis, keep):
    with pytest.raises(PlanError, match="between 0 and 1"):
        Plan.random(analysis, keep)


def test_file_gives_the_same_plan_and_the_same_bytes(plan, tmp_path):
    plan.save(tmp_path / "one.json")
    read = Plan.load(tmp_path / "one.json")
    read.save(tmp_path / "two.json")
    assert read == plan
    assert hash(read) == hash(plan)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a plan"),
        ("[]", "has no 'torch_dag_plan'"),
        ('{"torch_dag_plan": 99, "orbits": {}}', "format 99"),
        ('{"torch_dag_plan": 1, "orbits": {"a": [1]}}', "must hold a size"),
        ('{"torch_dag_plan": 1, "orbits": {"a": {"size": 2, "kept": [1.5]}}}', "must hold a size"),
        ('{"torch_dag_plan": 1, "orbits": {"a": {"size": 2, "kept": [2]}}}', "there is no slot 2"),
    ],
)
def test_file_that_is_no_plan_is_refused(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(PlanError, match=message):
        Plan.load(tmp_path / "bad.json")


def test_edit_changes_one_orbit_and_diff_says_how(plan):
    edited = plan.with_orbit("b.weight:0", [3, 1])
    assert edited.kept["b.weight:0"] == (1, 3)
    assert edited.kept["a.weight:0"] == plan.kept["a.weight:0"]
    change = plan.diff(edited)["b.weight:0"]
    assert set(plan.kept["b.weight:0"]) - set(change.dropped) | set(change.added) == {1, 3}
    assert list(plan.diff(edited)) == ["b.weight:0"]
    assert plan.diff(plan) == {}


def test_orbits_that_are_not_named_stay_whole(analysis):
    plan = Plan.keeping(analysis, {"a.weight:0": [1]})
    assert plan.counts() == {"a.weight:0": 1, "b.weight:0": 20}
    assert Plan({"a.weight:0": (1,)}, {"a.weight:0": 32}).diff(plan) == {}


@pytest.mark.parametrize(
    ("key", "kept", "message"),
    [("a.weight:0", [32], "no slot 32"), ("a.weight:0", [-1], "no slot -1"), ("a.weight:0", [1, 1], "twice"),
     ("c", [0], "no orbit 'c'")],
)  # fmt: skip
def test_edit_refuses_slots_and_orbits_that_do_not_exist(plan, key, kept, message):
    with pytest.raises(PlanError, match=message):
        plan.with_orbit(key, kept)


def test_plan_of_another_graph_is_refused(analysis):
    with pytest.raises(PlanError, match="no orbit 'c'"):
        Plan({"c": (0,)}, {"c": 4}).validate(analysis)
    with pytest.raises(PlanError, match="has 32 slots, the plan was made for 4"):
        Plan({"a.weight:0": (0,)}, {"a.weight:0": 4}).validate(analysis)
    with pytest.raises(PlanError, match="at least 2 slots, the plan keeps 1"):
        Plan({"a.weight:0": (0,)}, {"a.weight:0": 32}).validate(FakeAnalysis(minimum=2))


def test_text_shows_the_totals(plan):
    assert str(plan).splitlines()[0] == "keeps 26 of 52 slots in 2 orbits"


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("keep", [0.9, 0.6, 0.35])
def test_importance_meets_the_budget_with_the_best_slots(analysis, scope, keep):
    plan = Plan.by_importance(analysis, Rising(), keep, scope=scope)
    counts = plan.atom_counts(analysis)
    assert analysis.cost(counts) <= keep * analysis.cost()
    assert all(slots == tuple(range(plan.sizes[key] - len(slots), plan.sizes[key])) for key, slots in plan.kept.items())
    assert analysis.cost({4: min(32, counts[4] + 1), 7: min(20, counts[7] + 1)}) > keep * analysis.cost()


def test_importance_says_how_far_down_the_flops_go():
    with pytest.raises(PlanError, match=r"cannot be reached: with every orbit at its minimum 13\.65% stay"):
        Plan.by_importance(FakeAnalysis(), Rising(), 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"criterion": "nonesuch", "keep_flops": 0.5}, "no importance criterion 'nonesuch'; there are"),
     ({"criterion": Rising(), "keep_flops": 0.0}, "above 0"),
     ({"criterion": Rising(), "keep_flops": 0.5, "scope": "solar"}, "no scope 'solar'"),
     ({"criterion": Rising(), "keep_flops": 0.5, "multiple_of": 0}, "at least 1")],
)  # fmt: skip
def test_importance_refuses_what_it_does_not_know(analysis, arguments, message):
    with pytest.raises(PlanError, match=message):
        Plan.by_importance(analysis, **arguments)


def test_files_of_format_1_keep_loading(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"torch_dag_plan": 1, "orbits": {\n"a.weight:0": {"size": 4, "kept": [0, 3]}\n}}\n')
    assert Plan.load(path) == Plan({"a.weight:0": (0, 3)}, {"a.weight:0": 4})
