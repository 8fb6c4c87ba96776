"""Results that are dataclass, dictionary and tuple in one, and names that generated code must keep."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import ExampleInputsError, SerializationError, TraceError
from torch_dag_core.graph.keyed_record import keyed_record_type
from torch_dag_core.serialization import load


class ModelOutput(OrderedDict):
    """A stand-in for the base class that model libraries give their results."""

    def __post_init__(self):
        for field in fields(self):
            if getattr(self, field.name) is not None:
                super().__setitem__(field.name, getattr(self, field.name))

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self):
        return tuple(self.values())


@dataclass
class Output(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        logits = self.fc(x)
        return Output(logits=logits, hidden=(x, logits * 2))


def rows(batch):
    return torch.randn(batch, 4)


@pytest.fixture(params=["converted", "reloaded"])
def dag(request, tmp_path):
    made = build_from_unstructured_module(Classifier().eval(), rows(2))
    if request.param == "converted":
        return made
    made.save(tmp_path / "dag.safetensors")
    return load(tmp_path / "dag.safetensors").eval()


def test_every_way_to_read_a_result(dag):
    result = dag(rows(3))
    assert type(result).__name__ == "Output"
    assert list(result) == list(result.keys()) == ["logits", "hidden"]
    assert result[0] is result["logits"] is result.logits is result.to_tuple()[0] is result[:2][0]
    assert (result.loss, len(result), "loss" in result) == (None, 2, False)
    assert [name for name, _ in result.items()] == list(dict(**result))
    with pytest.raises(KeyError):
        result["loss"]
    with pytest.raises(IndexError):
        result[2]


def test_writing_one_way_is_writing_the_other(dag):
    result = dag(rows(3))
    result["logits"] = other = torch.zeros(3)
    result.hidden = (other,)
    assert result.logits is other
    assert result["hidden"][0] is other


def test_results_are_equal_to_the_models(faithful):
    faithful(Classifier(), rows)


def test_copies_are_of_the_same_class(dag):
    with torch.no_grad():
        result = dag(rows(3))
    for again in (copy.deepcopy(result), copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert type(again) is type(result)
        assert torch.equal(again.logits, result[0])


def test_results_are_trees(dag):
    result = dag(rows(3))
    leaves, structure = _pytree.tree_flatten(result)
    assert len(leaves) == 3
    again = _pytree.tree_unflatten(leaves, structure)
    assert type(again) is type(result)
    assert again["hidden"][1] is result.hidden[1]
    paths = [_pytree.keystr(path) for path, _ in _pytree.tree_flatten_with_path(result)[0]]
    assert paths == ["['logits']", "['hidden'][0]", "['hidden'][1]"]


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # older releases of torch.export
def test_results_can_be_exported(dag):
    exported = torch.export.export(dag, (rows(3),))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    x = rows(3)
    for program in (exported, torch.export.load(file)):
        result = program.module()(x)
        assert list(result) == ["logits", "hidden"]
        assert torch.equal(result.logits, dag(x).logits)


def test_a_field_may_not_hide_a_method():
    with pytest.raises(ValueError, match="cannot have a field named 'items'"):
        keyed_record_type("Output", ("logits", "items"))


# Names -----------------------------------------------------------------------------------------------------------


class Shadowing(nn.Module):
    """Take parameters that are named like functions of Python."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, pair, len, tuple=None, isinstance=1):  # noqa: A002
        return self.fc(pair[0]) * len + self.fc(pair[1]["a"]), tuple, isinstance


def test_parameters_may_be_named_like_functions(reloaded):
    reloaded(Shadowing(), lambda n: ((rows(n), {"a": rows(n)}), torch.randn(n, 3)))


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, ｘ, ﬁrst=None):  # noqa: PLC2401
        return self.fc(ｘ) if ﬁrst is None else self.fc(ｘ) + ﬁrst


def test_names_are_what_python_makes_of_them(reloaded):
    reloaded(Wide(), lambda n: {"x": rows(n), "first": torch.ones(n, 1)})


class Keywords(nn.Module):
    def forward(self, **named):
        return sum(named.values()) * 2


@pytest.mark.parametrize("name", ["\uff58", "a-b", "class", "_x0"])
def test_keywords_that_no_parameter_can_have_are_refused(name):
    with pytest.raises(ExampleInputsError, match=f"takes '{name}', which cannot name a parameter"):
        build_from_unstructured_module(Keywords(), {name: rows(2)})


def test_fields_that_generated_code_cannot_name_are_not_saved(tmp_path):
    wide = namedtuple("Wide", ["\uff58"])  # noqa: PYI024

    class Model(nn.Module):
        def forward(self, x):
            return wide(x * 2)

    graph = build_from_unstructured_module(Model(), rows(2))
    with pytest.raises(SerializationError, match="is not the name of a record or of a field"):
        graph.save(tmp_path / "dag.safetensors")


def test_an_internal_error_names_function_and_line(monkeypatch):
    from torch_dag_core.conversion.normalizers import contraction

    def broken(*_: object) -> None:
        message = "no such thing"
        raise ValueError(message)

    monkeypatch.setattr(contraction, "promote", broken)
    with pytest.raises(
        TraceError, match=rf"'linear', called in module '' at {__file__}:\d+, cannot .*ValueError: no such"
    ):
        build_from_unstructured_module(Functional(), rows(2))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)
