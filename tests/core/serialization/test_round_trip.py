"""What is saved comes back: outputs bit for bit, names, sharing, modes, gradients; and the same bytes again."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from torch_dag_core.graph.builtin_ops import Constant, State
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.serialization import load, save

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture
def round_trip(tmp_path, registry):
    def run(dag, **keywords):
        save(dag, tmp_path / "file.safetensors", registry=registry)
        return load(tmp_path / "file.safetensors", registry=registry, **keywords)

    return run


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return [("key", key) for key in value] + [leaf for item in value.values() for leaf in flat(item)]
    if isinstance(value, (list, tuple)):
        return [(type(value).__name__, len(value))] + [leaf for item in value for leaf in flat(item)]
    return [value]


def same(first, second):
    """Compare outputs bit for bit, NaN included."""
    pairs = list(zip(flat(first), flat(second), strict=True))
    return all(
        torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) if isinstance(a, torch.Tensor) else a == b for a, b in pairs
    )


def facts(dag):
    """Describe everything of a graph but the values of its tensors, without looking at how files are made."""
    tensors = [*dag.named_parameters(remove_duplicate=False), *dag.named_buffers(remove_duplicate=False)]
    names: dict[int, str] = {}
    return {
        "text": str(dag),
        "modes": {name: module.training for name, module in dag.named_modules() if type(module).__name__ != "Scope"},
        "tensors": [(name, t.shape, t.dtype, t.requires_grad, type(t), t.stride()) for name, t in tensors],
        "ties": [(name, names.setdefault(id(t), name)) for name, t in tensors],
        "state": list(dag.state_dict()),
        "spec": dag.input_spec,
        "provenance": dag.provenance,
        "graphs": [(v.name, str(v.module)) for v in dag.traverse() if hasattr(v, "module")],
    }


def outputs(dag, x, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        return dag(x)


@settings(max_examples=150)
@given(seed=SEEDS)
def test_random_graph_comes_back(tmp_path_factory, registry, random_dag, seed):
    folder = tmp_path_factory.mktemp("graphs")
    dag = random_dag(seed)
    before = {name: value.clone() for name, value in dag.state_dict().items()}
    save(dag, folder / "a.safetensors", registry=registry)
    assert all(torch.equal(value, before[name]) for name, value in dag.state_dict().items())
    state = torch.get_rng_state()
    loaded = load(folder / "a.safetensors", registry=registry)
    assert torch.equal(state, torch.get_rng_state())
    assert facts(loaded) == facts(dag)
    save(loaded, folder / "b.safetensors", registry=registry)
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()
    x = torch.randn(3, 4)
    assert same(outputs(dag, x, 1), outputs(loaded, x, 1))
    assert all(torch.equal(value, dag.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_keys_of_the_file_are_those_of_state_dict(tmp_path, registry, tiny):
    dag = tiny()
    save(dag, tmp_path / "t.safetensors", registry=registry)
    with safe_open(tmp_path / "t.safetensors", "pt") as handle:
        stored = set(handle.keys())
        assert set(handle.metadata()) == {"torch_dag"}
    assert stored == set(dag.state_dict()) - {"tied.weight"} | {"mask.mask"}


def test_everything_in_the_tiny_graph_comes_back(round_trip, tiny):
    dag = tiny()
    dag.get_vertex_by_name("mask").module.mask.copy_(torch.tensor([2.0, 3.0]))
    loaded = round_trip(dag)
    assert facts(loaded) == facts(dag)
    x = torch.randn(3, 2)
    assert same(outputs(dag, x, 0), outputs(loaded, x, 0))
    assert same(outputs(dag.eval(), x, 0), outputs(loaded.eval(), x, 0))
    assert loaded.get_vertex_by_name("tied").module.weight is loaded.get_vertex_by_name("stem.fc").module.weight
    assert loaded.get_vertex_by_name("again").module is loaded.get_vertex_by_name("stem.fc").module


def test_two_parameters_that_share_memory_still_do(round_trip, random_dag):
    dag = random_dag(0)
    x = dag.input_vertices[0]
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    two.weight = nn.Parameter(one.weight.detach(), requires_grad=False)
    dag.add_vertex("one", one, [x])
    dag.add_vertex("two", two, [x])
    loaded = round_trip(dag)
    first, second = (loaded.get_vertex_by_name(name).module.weight for name in ("one", "two"))
    assert first is not second
    assert first.data_ptr() == second.data_ptr()
    assert (first.requires_grad, second.requires_grad) == (True, False)


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(6, 4).t(), torch.randn(8)[::2], torch.randn(10)[3:7], torch.zeros(0, 3), torch.tensor(3),
        torch.randn(4).expand(3, 4), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(3, dtype=torch.complex128), torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3).bfloat16(), torch.tensor([True, False]), torch.tensor([float("nan"), float("inf"), -0.0]),
        torch.arange(5, dtype=torch.uint8), torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    ],
    ids=lambda value: f"{value.dtype}{tuple(value.shape)}",
)  # fmt: skip
def test_any_plain_tensor_comes_back_and_is_left_alone(round_trip, value):
    dag = DagModule()
    held = dag.add_vertex("held", Constant(value.shape, value.dtype, value=value))
    dag.set_output(held)
    place, strides = value.data_ptr(), value.stride()
    loaded = round_trip(dag).get_vertex_by_name("held").module.value
    assert torch.equal(loaded.nan_to_num(1.5), value.nan_to_num(1.5))
    assert loaded.dtype is value.dtype
    assert held.module.value is value
    assert (place, strides) == (value.data_ptr(), value.stride())
    if value.dim() >= 4:
        assert loaded.stride() == strides


@pytest.mark.parametrize("shift", range(1, 16))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_tensors_at_odd_addresses_of_the_file_are_read(tmp_path, registry, dtype, shift):
    dag = DagModule()
    value = torch.randn(100, dtype=dtype)
    dag.set_output(dag.add_vertex("held", Constant((100,), dtype, value=value)))
    save(dag, tmp_path / "even", registry=registry)
    content = (tmp_path / "even").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * shift
    (tmp_path / "odd").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    loaded = load(tmp_path / "odd", registry=registry)
    assert torch.equal(loaded.get_vertex_by_name("held").module.value, value)


def test_buffer_outside_of_state_dict_comes_back(round_trip):
    dag = DagModule()
    dag.set_output(dag.add_vertex("held", Constant((2,), torch.float32, persistent=False, value=torch.randn(2))))
    loaded = round_trip(dag)
    assert torch.equal(loaded.get_vertex_by_name("held").module.value, dag.get_vertex_by_name("held").module.value)
    assert list(loaded.state_dict()) == []


def test_overlapping_views_are_stored_whole(round_trip):
    dag = DagModule()
    base = torch.randn(10)
    parts = [base[:6], base[4:], base]
    vertices = [dag.add_vertex(f"part{i}", Constant(p.shape, p.dtype, value=p)) for i, p in enumerate(parts)]
    dag.set_outputs([], [])
    loaded = round_trip(dag)
    for vertex, part in zip(vertices, parts, strict=True):
        assert torch.equal(loaded.get_vertex_by_name(vertex.name).module.value, part)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_the_model_is_kept_whatever_the_default_is(round_trip, tiny, dtype):
    dag = tiny().to(dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        loaded = round_trip(dag)
    finally:
        torch.set_default_dtype(before)
    assert facts(loaded) == facts(dag)


def test_tensors_do_not_depend_on_the_file(tmp_path, registry, tiny):
    path = tmp_path / "t.safetensors"
    save(tiny(), path, registry=registry)
    loaded = load(path, registry=registry)
    path.write_bytes(b"\0" * path.stat().st_size)
    first, second = (dag.get_vertex_by_name("stem.fc").module.weight for dag in (loaded, tiny()))
    assert torch.equal(first, second)
    assert all(t.data_ptr() % 64 == 0 for t in (*loaded.parameters(), *loaded.buffers()))


def test_recurrent_layer_runs_and_trains_after_loading(round_trip):
    dag = DagModule()
    lstm = nn.LSTM(4, 4, num_layers=2, batch_first=True, dropout=0.3)
    dag.add_vertex("lstm", lstm, [dag.add_input("x")])
    dag.set_outputs([], [])
    loaded = round_trip(dag).get_vertex_by_name("lstm").module
    x = torch.randn(2, 5, 4)
    assert torch.equal(lstm.eval()(x)[0], loaded.eval()(x)[0])
    loaded(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_shared_module_keeps_the_vertex_that_names_it(round_trip):
    dag = DagModule()
    x = dag.add_input("x")
    shared = nn.Linear(4, 4)
    last = dag.add_vertex("last", shared, [x])
    first = dag.add_vertex("first", shared, [x])
    dag.set_predecessor(last, 0, first)
    dag.set_output(last)
    loaded = round_trip(dag)
    assert [v.name for v in loaded.inner_vertices] == ["first", "last"]
    assert list(loaded.state_dict()) == list(dag.state_dict()) == ["last.weight", "last.bias"]


def test_parameters_keep_their_order_for_optimizers(round_trip):
    dag = DagModule()
    vertex = dag.add_input("x")
    for name in ("a.one", "b", "a.two", "c"):
        vertex = dag.add_vertex(name, nn.Linear(4, 4), [vertex])
    dag.set_output(vertex)
    dag.replace_module(dag.get_vertex_by_name("a.one"), nn.Linear(4, 4))
    dag.replace_module(dag.get_vertex_by_name("b"), nn.Linear(4, 4))
    names = [name for name, _ in dag.named_parameters()]
    assert names[0].startswith("a.two")
    assert [name for name, _ in round_trip(dag).named_parameters()] == names


def test_state_called_by_two_vertices_is_one_module(round_trip):
    dag = DagModule()
    x = dag.add_input("x")
    state = State((4,), torch.float32, value=torch.ones(4))
    dag.add_vertex("read", state)
    dag.add_vertex("write", state, [x])
    dag.set_outputs([], [])
    loaded = round_trip(dag)
    assert loaded.get_vertex_by_name("read").module is loaded.get_vertex_by_name("write").module


def test_long_chain_is_no_problem(round_trip):
    dag = DagModule()
    vertex = dag.add_input("x")
    for index in range(5000):
        vertex = dag.add_vertex(f"act{index}", nn.ReLU(), [vertex])
    dag.set_output(vertex)
    assert len(round_trip(dag)) == 5001


def test_clone_gives_the_same_bytes(tmp_path, registry, random_dag):
    dag = random_dag(3)
    save(dag, tmp_path / "a", registry=registry)
    save(copy.deepcopy(dag), tmp_path / "b", registry=registry)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
