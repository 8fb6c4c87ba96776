"""What goes in and comes out: nested containers, constants among tensors, keywords, defaults."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import ExampleInputsError, InputError, TraceError


def rows(batch):
    return torch.randn(batch, 4)


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.fc(x))


Pair = namedtuple("Pair", ["first", "second"])  # noqa: PYI024


@dataclass
class Result:
    logits: Tensor
    hidden: Any = None
    name: str = "result"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x, x * 2),
        lambda x: [x, [x * 2, (x,)]],
        lambda x: {"out": x, "aux": {"a": x + 1, "b": [x, None]}},
        lambda x: OrderedDict(out=x, aux=x * 2),
        lambda x: Pair(x, None),
        lambda x: Pair(Pair(x, 1), [x * 2]),
        Result,
        lambda x: Result(x, hidden=(x * 2, Pair(x, x))),
        lambda x: (x, None, 3, 2.5, "text", True),
        lambda x: (x, x.shape[1], x.dim()),
        lambda x: (x, x),
        lambda x: (x.relu(),),
    ],
)
def test_results_have_the_structure_of_the_model(faithful, function):
    faithful(Returns(function), rows)


def test_an_input_may_be_returned_as_it_is(faithful):
    class Echo(nn.Module):
        def forward(self, x, y):
            return y, x, x + y

    faithful(Echo(), lambda b: (rows(b), rows(b)))


def test_a_returned_number_that_follows_the_batch_fixes_it():
    dag = build_from_unstructured_module(Returns(lambda x: (x, x.shape[0])), rows(2))
    assert dag(rows(2))[1] == 2
    with pytest.raises(InputError, match="returns a number that follows the input sizes"):
        dag(rows(3))


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask=None, scale=2.0, *, residual=None):
        y = self.fc(x) * scale
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        return y if residual is None else y + residual


def test_optional_inputs_left_out_stay_left_out(faithful):
    dag = faithful(Optional(), rows)
    x = rows(2)
    assert torch.equal(dag(x), dag(x, None, 2.0, residual=None))
    with pytest.raises(InputError, match="argument 'mask' is Tensor, but the model was traced with None"):
        dag(x, x > 0)
    with pytest.raises(InputError, match="'scale'"):
        dag(x, scale=3.0)


def test_optional_inputs_that_are_given_are_inputs(faithful):
    model = Optional()
    dag = faithful(model, lambda b: ((rows(b), rows(b) > 0), {"residual": rows(b)}))
    x, mask, residual = rows(3), rows(3) > 0, rows(3)
    expected = model(x, mask, residual=residual)
    assert torch.equal(dag(x, mask=mask, residual=residual), expected)
    assert torch.equal(dag(residual=residual, mask=mask, x=x), expected)
    with pytest.raises((InputError, TypeError), match="residual"):
        dag(x, mask)


def test_positions_of_arguments_survive_constants_before_tensors(faithful):
    class Mixed(nn.Module):
        def forward(self, x, flag, y, power=1):
            return x**power + y if flag else x - y

    model = Mixed()
    dag = faithful(model, lambda b: (rows(b), True, rows(b)))
    x, y = rows(2), rows(2)
    assert torch.equal(dag(x, True, y), model(x, True, y))
    assert torch.equal(dag(x, flag=True, y=y), model(x, True, y))
    with pytest.raises(InputError, match="'flag'"):
        dag(x, False, y)


def test_keyword_only_inputs(faithful):
    class Keywords(nn.Module):
        def forward(self, *, left, right):
            return left - right * 2

    faithful(Keywords(), lambda b: {"left": rows(b), "right": rows(b)})


def test_parameters_named_like_the_generated_variables(faithful):
    class Names(nn.Module):
        def forward(self, x1, x0, v0, d0=3, calls=None, k0=2):
            return x1 - 2 * x0 + v0 * d0 * k0

    faithful(Names(), lambda b: (rows(b), rows(b), rows(b)))


def test_variable_arguments(faithful):
    class Variable(nn.Module):
        def forward(self, first, *rest, **named):
            return first + sum(rest) + sum(named.values())

    faithful(Variable(), lambda b: ((rows(b), rows(b), rows(b)), {"a": rows(b), "b": rows(b)}))


def test_nested_inputs(faithful):
    class Nested(nn.Module):
        def forward(self, batch, pair):
            return batch["image"] * batch["more"][0] + pair[1]

    dag = faithful(Nested(), lambda b: ({"image": rows(b), "more": [rows(b), 1]}, (None, rows(b))))
    assert len(dag.input_vertices) == 3


def test_record_inputs(faithful):
    class Records(nn.Module):
        def forward(self, record, pair):
            return record.logits * 2 + pair.first

    faithful(Records(), lambda b: (Result(rows(b)), Pair(rows(b), None)))


def test_several_inputs_of_several_types(faithful):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(7, 4), nn.Linear(4, 4)

        def forward(self, image, index, mask):
            return torch.where(mask, self.fc(image), self.embed(index))

    faithful(Several(), lambda b: (rows(b), torch.randint(0, 7, (b,)), torch.rand(b, 1) > 0.5))


def test_integer_tokens(faithful):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.position = nn.Embedding(50, 8), nn.Parameter(torch.randn(1, 12, 8))
            self.head = nn.Linear(8, 50)

        def forward(self, tokens):
            x = self.embed(tokens) + self.position[:, : tokens.shape[1]]
            return self.head(x.mean(1)), tokens == 0

    faithful(Tokens(), lambda b: torch.randint(0, 50, (b, 9)))


def test_an_example_of_batch_one_leaves_the_batch_free(faithful):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)).view(x.size(0), -1))

    model = Pooled()
    dag = build_from_unstructured_module(model, torch.randn(1, 3, 8, 8))
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.equal(dag(x), model(x))


def test_scalar_inputs(faithful):
    class Scaled(nn.Module):
        def forward(self, x, scale):
            return x * scale

    faithful(Scaled(), lambda b: (rows(b), torch.tensor(3.0)))
    build_from_unstructured_module(Scaled(), (torch.tensor(2.0), torch.tensor(3.0)))


@pytest.mark.parametrize("inputs", [(), {}, (3, None), ((), {"x": 1})])
def test_an_example_without_tensors_is_refused(inputs):
    with pytest.raises(ExampleInputsError, match=r"hold no tensor|do not fit"):
        build_from_unstructured_module(Optional(), inputs)


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(ExampleInputsError, match=r"do not fit Optional.forward\(.*\): too many positional"):
        build_from_unstructured_module(Optional(), (rows(2),) * 5)
    with pytest.raises(ExampleInputsError, match="is a list; pass a tensor, a tuple of arguments, a dict"):
        build_from_unstructured_module(Optional(), [rows(2)])


def test_a_result_that_is_no_value_of_a_graph_is_refused():
    with pytest.raises(TraceError, match=r"object cannot be stored|cannot be stored as a constant of a graph"):
        build_from_unstructured_module(Returns(lambda x: (x, object())), rows(2))


def test_training_may_return_another_structure(faithful):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.aux = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            y = self.fc(x)
            return (y, {"aux": self.aux(y)}) if self.training else y

    dag = faithful(Auxiliary(), rows)
    assert isinstance(dag.eval()(rows(2)), Tensor)
    assert isinstance(dag.train()(rows(2)), tuple)


def test_outside_its_shapes_a_graph_says_what_it_takes():
    dag = build_from_unstructured_module(nn.Sequential(nn.Linear(4, 4)), rows(2))
    with pytest.raises(InputError, match=r"input 0 has shape \(2, 5\), the graph takes \(any, 4\)"):
        dag(torch.randn(2, 5))
    with pytest.raises(InputError, match=r"input 0 has shape \(4,\)"):
        dag(torch.randn(4))
