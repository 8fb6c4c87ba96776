"""State that a forward changes outside of buffers: followed where it does not matter, else refused by name."""

from __future__ import annotations

import functools
import random
import types
from collections import OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, TraceError

TABLE = torch.ones(4)
LOG = []
COUNT = 0
SETTINGS = {"scale": 1.0}


def rows(batch=2):
    return torch.randn(batch, 4)


class Net(nn.Module):
    """A layer, and state that a function prepares and a forward changes."""

    calls = 0
    shared = {"gain": torch.ones(4)}  # noqa: RUF012

    def __init__(self, prepare, forward):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        prepare(self)
        self.step = types.MethodType(forward, self)

    def forward(self, x):
        return self.step(self.fc(x))


def a(value):
    return lambda net: setattr(net, "s", value)


class Memory:
    def __init__(self):
        self.count, self.values = 0, [torch.zeros(4)]


def counts(net, x):
    net.s += 1
    return x * net.s


def counts_in_a_list(net, x):
    net.s[0] += 1
    return x * net.s[0]


def counts_in_a_nested_dict(net, x):
    net.s["a"][1]["n"] += 1
    return x * net.s["a"][1]["n"]


def adds_to_a_tensor_in_a_dict(net, x):
    net.s["t"].add_(1)
    return x + net.s["t"]


def adds_what_it_computes(net, x):
    y = x + net.s["t"]
    net.s["t"].add_(x.mean(0).detach())
    return y


def replaces_a_tensor_in_a_dict(net, x):
    y = x + net.s["t"]
    net.s["t"] = net.s["t"] + 1
    return y


def replaces_what_it_computes(net, x):
    y = x + net.s["t"]
    net.s["t"] = y.mean(0).detach()
    return y


def keeps_the_first_input(net, x):
    if net.s is None:
        net.s = x.mean(0)
    return x + net.s


def appends(net, x):
    net.s.append(1)
    return x * len(net.s)


def takes_turns(net, x):
    net.s.rotate(1)
    return x * net.s[0]


def switches(net, x):
    net.s = not net.s
    return x if net.s else -x


def warms_up(net, x):
    net.s += 1
    return x if net.s > 5000 else x * 2


def warms_up_in_a_dict(net, x):
    net.s["n"] += 1
    return x if net.s["n"] > 5000 else x * 2


def counts_in_an_object(net, x):
    net.s.count += 1
    return x * net.s.count


def adds_to_a_tensor_in_an_object(net, x):
    net.s.values[0].add_(1)
    return x + net.s.values[0]


def counts_in_the_class(net, x):
    Net.calls += 1
    return x * Net.calls


def adds_to_a_tensor_in_the_class(net, x):
    net.shared["gain"].add_(1)
    return x * net.shared["gain"]


def adds_to_a_global(net, x):
    TABLE.add_(1)
    return x * TABLE


def counts_in_a_global(net, x):
    global COUNT  # noqa: PLW0603
    COUNT += 1
    return x * COUNT


def changes_a_global_dict(net, x):
    SETTINGS["scale"] *= 2
    return x * SETTINGS["scale"]


def adds_to_an_array(net, x):
    net.s += 1
    return x + torch.from_numpy(net.s)


def returns_a_count(net, x):
    net.s += 1
    return x, net.s


def counts_in_a_closure():
    count = 0

    def forward(net, x):
        nonlocal count
        count += 1
        return x * count

    return forward


def adds_to_a_tensor_in_a_closure():
    values = [torch.zeros(4)]

    def forward(net, x):
        values[0].add_(1)
        return x + values[0]

    return forward


def writes_a_hidden_parameter(net, x):
    with torch.no_grad():
        net.s[0].mul_(0.5)
    return x * net.s[0]


def keeps_a_view_of_what_it_changes(net, x):
    if net.s is not None:
        return x + net.s
    table = net.fc.weight.sigmoid()
    net.s = table[0]
    y = x + net.s
    table.add_(1)
    return y


def caches(make):
    """Return a forward that keeps what ``make`` gives for the first input of each shape."""

    def forward(net, x):
        if net.s is None or net.s[0] != x.shape:
            net.s = x.shape, make(net, x)
        return x + net.s[1]

    return forward


DEPENDENT = {
    "a count": (a(0), counts, "s"),
    "a float": (a(0.5), counts, "s"),
    "a count in a list": (a([0]), counts_in_a_list, r"s\[0\]"),
    "a nested count": (a({"a": (0, {"n": 1})}), counts_in_a_nested_dict, r"s\['a'\]\[1\]\['n'\]"),
    "a tensor in a dict": (a({"t": torch.zeros(4)}), adds_to_a_tensor_in_a_dict, r"s\['t'\]"),
    "an ordered dict": (a(OrderedDict(t=torch.zeros(4))), adds_to_a_tensor_in_a_dict, r"s\['t'\]"),
    "a computed sum": (a({"t": torch.zeros(4)}), adds_what_it_computes, r"s\['t'\]"),
    "a replaced tensor": (a({"t": torch.zeros(4)}), replaces_a_tensor_in_a_dict, r"s\['t'\]"),
    "a replaced computed tensor": (a({"t": torch.zeros(4)}), replaces_what_it_computes, r"s\['t'\]"),
    "the first input": (a(None), keeps_the_first_input, "s"),
    "the length of a list": (a([]), appends, "s"),
    "a view": (a(None), keeps_a_view_of_what_it_changes, "s"),
    "turns": (a(deque([1, 2])), takes_turns, r"s\[0\]"),
    "a switch": (a(False), switches, "s"),
    "a late decision": (a(0), warms_up, "s"),
    "a late decision on an entry": (lambda net: setattr(net, "s", {"n": 0}), warms_up_in_a_dict, r"s\['n'\]"),
    "a count in an object": (lambda net: setattr(net, "s", Memory()), counts_in_an_object, r"s\.count"),
    "a tensor in an object": (
        lambda net: setattr(net, "s", Memory()), adds_to_a_tensor_in_an_object, r"s\.values\[0\]",
    ),
    "a count in the class": (a(0), counts_in_the_class, r"Net\.calls"),
    "a tensor in the class": (a(0), adds_to_a_tensor_in_the_class, r"Net\.shared\['gain'\]"),
    "a global tensor": (a(0), adds_to_a_global, r"TABLE"),
    "a global count": (a(0), counts_in_a_global, r"COUNT"),
    "a global dict": (a(0), changes_a_global_dict, r"SETTINGS\['scale'\]"),
    "an array": (a(np.zeros(4, dtype=np.float32)), adds_to_an_array, "s"),
    "a count that is returned": (a(0), returns_a_count, "s"),
    "a table with a value of the input": (
        a(None), caches(lambda net, x: torch.arange(4).type_as(x) * x.mean()), "s",
    ),
    "the input in the type of a table": (a(None), caches(lambda net, x: x.to(torch.arange(4).double())), "s"),
    "the input in the form of another": (a(None), caches(lambda net, x: x[0].expand_as(x)), "s"),
    "a count in a closure": (a(0), counts_in_a_closure(), "count"),
    "a tensor in a closure": (a(0), adds_to_a_tensor_in_a_closure(), r"values of .*\[0\]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEPENDENT)
def test_state_that_decides_the_next_call_is_refused_by_name(kind):
    prepare, forward, name = DEPENDENT[kind]
    model = Net(prepare, forward).eval()
    first = model.fc.weight
    with pytest.raises(TraceError, match=f"the model changes .*{name}.* in its forward.*make it a buffer"):
        build_from_unstructured_module(model, rows())
    assert model.fc.weight is first
    assert not first.is_meta


@pytest.mark.parametrize("kind", DEPENDENT)
def test_state_is_as_it_was_after_a_refusal(kind):
    prepare, forward, _ = DEPENDENT[kind]
    torch.manual_seed(0)
    model = Net(prepare, forward).eval()
    x = rows()
    with pytest.raises(TraceError):
        build_from_unstructured_module(model, x)
    table, count, scale, gain, calls = TABLE.clone(), COUNT, SETTINGS["scale"], Net.shared["gain"].clone(), Net.calls
    with pytest.raises(TraceError):
        build_from_unstructured_module(model, x)
    assert (count, scale, calls) == (COUNT, SETTINGS["scale"], Net.calls) == (0, 1.0, 0)
    assert torch.equal(table, TABLE)
    assert torch.equal(table, torch.ones(4))
    assert torch.equal(gain, Net.shared["gain"])


def test_a_write_into_a_parameter_in_a_list_is_refused_and_undone():
    model = Net(lambda net: setattr(net, "s", [nn.Parameter(torch.ones(4))]), writes_a_hidden_parameter).eval()
    with pytest.raises(TraceError, match="writes into a tensor behind the back of autograd"):
        build_from_unstructured_module(model, rows())
    assert torch.equal(model.s[0], torch.ones(4))


def keeps_statistics(net, x):
    net.s["calls"] += 1
    net.s["shapes"].append(tuple(x.shape))
    net.s["last"] = x
    net.s["load"] += x.detach().abs().mean()
    Net.calls += 1
    LOG.append(x.shape)
    return x * 2


def caches_by_size(net, x):
    key = (x.shape[0], x.shape[1])
    if key not in net.s:
        net.s[key] = torch.arange(key[1]).float() * 2
    return x + net.s[key]


def caches_in_an_attribute(net, x):
    if net.s is None or net.s.shape[0] != x.shape[1]:
        net.s = torch.linspace(0, 1, x.shape[1]).cos()
    return x + net.s


def makes_a_layer(net, x):
    if net.s is None:
        net.s = nn.LeakyReLU()
    return net.s(x)


def grows_a_cache(net, x):
    length = x.shape[1]
    if length > net.s["length"]:
        net.s.update(length=length, cos=torch.arange(length).float().cos())
    return x * net.s["cos"][:length]


def caches_what_follows_from_a_parameter(net, x):
    if net.training:
        return x * net.fc.weight.sigmoid().mean(0)
    if "w" not in net.s:
        net.s["w"] = net.fc.weight.sigmoid().mean(0)
    return x * net.s["w"]


def counts_beside_a_cache(net, x):
    net.s["calls"] += 1
    return caches_what_follows_from_a_parameter(net, x)


def reads_a_cache_late(net, x):
    net.s["calls"] += 1
    value = net.fc.weight.sigmoid().mean(0)
    if net.training:
        return x * value
    if "w" not in net.s:
        net.s["w"] = value
    return x * (net.s["w"] if net.s["calls"] > 5000 else value)


def uses_a_scratch(net, x):
    net.s["t"].copy_(x[0])
    y = net.s["t"] * 2
    return y + x


def fills_a_scratch(net, x):
    net.s["t"].fill_(3.0)
    return net.s["t"] + x


def stores_sizes(net, x):
    net.height, net.width = x.shape
    return x.reshape(net.height, net.width) * net.width


def logs_now_and_then(net, x):
    net.s += 1
    if net.s % 1000 == 0:
        LOG.append(net.s)
    return x * 3


def caches_with_a_decorator(net, x):
    return x + _table(x.shape[1])


@functools.lru_cache
def _table(n):
    return torch.ones(int(n))


INDEPENDENT = {
    "statistics": (
        lambda net: setattr(net, "s", {"calls": 0, "shapes": [], "last": None, "load": torch.zeros(())}),
        keeps_statistics,
    ),
    "a cache by size": (lambda net: setattr(net, "s", {}), caches_by_size),
    "a cache in a default dict": (lambda net: setattr(net, "s", defaultdict(list)), caches_by_size),
    "a cache in an attribute": (a(None), caches_in_an_attribute),
    "a layer made by the first call": (a(None), makes_a_layer),
    "a cache that grows": (lambda net: setattr(net, "s", {"length": 0, "cos": None}), grows_a_cache),
    "a cache of what parameters give": (lambda net: setattr(net, "s", {}), caches_what_follows_from_a_parameter),
    "a count beside a cache": (lambda net: setattr(net, "s", {"calls": 0}), counts_beside_a_cache),
    "a cache that is read late": (lambda net: setattr(net, "s", {"calls": 0}), reads_a_cache_late),
    "a scratch tensor": (lambda net: setattr(net, "s", {"t": torch.zeros(4)}), uses_a_scratch),
    "a scratch tensor for a constant": (lambda net: setattr(net, "s", {"t": torch.zeros(4)}), fills_a_scratch),
    "sizes": (a(0), stores_sizes),
    "a log": (a(998), logs_now_and_then),
    "a decorator": (a(0), caches_with_a_decorator),
    "a table in the type of the input": (a(None), caches(lambda net, x: torch.arange(4).type_as(x) * 0.5)),
    "a table like the input": (a(None), caches(lambda net, x: torch.arange(4).to(x).cos())),
    "a table as wide as the input": (a(None), caches(lambda net, x: torch.arange(4.0).expand_as(x) + 1)),
    "a table in the shape of the input": (a(None), caches(lambda net, x: torch.ones(x.numel()).view_as(x).cumsum(1))),
    "a table made by the input": (
        a(None),
        caches(lambda net, x: torch.stack([x.new_full((4,), 2.0), x.new_ones(4)]).sum(0)),
    ),
    "zeros like the input": (a(None), caches(lambda net, x: torch.zeros_like(x).cos())),
    "a table by a parameter": (a(None), caches(lambda net, x: torch.arange(4).type_as(x) * net.fc.weight.mean())),
}


BY_BATCH = {"a cache by size", "a cache in a default dict"}
"""Whether a dict has a size among its keys does not show in a trace, so the graph takes one batch size alone."""


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_statistics_and_caches_convert(kind, faithful):
    prepare, forward = INDEPENDENT[kind]
    model = Net(prepare, forward).eval()
    old = vars(model).copy()
    dag = build_from_unstructured_module(model, rows())
    assert vars(model).keys() == old.keys()
    assert all(vars(model)[name] is value for name, value in old.items())
    assert (LOG, Net.calls) == ([], 0)
    for batch in (2, 3):
        x = rows(batch)
        random.seed(0)
        expected = model(x)
        if batch == 3 and kind in BY_BATCH:
            with pytest.raises(InputError, match="batch size is fixed: the model turns a size into an ordinary object"):
                dag(x)
            continue
        torch.testing.assert_close(dag(x), expected, rtol=0, atol=0)
    LOG.clear()
    Net.calls = 0


def test_a_table_that_changes_after_conversion_is_the_graphs_own():
    model = Net(lambda net: setattr(net, "s", {"t": torch.zeros(4)}), fills_a_scratch).eval()
    dag = build_from_unstructured_module(model, x := rows())
    expected = model(x)
    model.s["t"].fill_(9.0)
    assert torch.equal(dag(x), expected)
