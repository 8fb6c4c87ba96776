"""What is done with any module is done with a graph."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from torch_dag_core.conversion.convert import build_from_unstructured_module


def test_deep_copies_are_independent(dag, images):
    before = dag(images)
    other = copy.deepcopy(dag)
    assert torch.equal(other(images), before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.replace_module(other.get_vertex_by_name("block.relu"), nn.Tanh())
    assert torch.equal(dag(images), before)
    other.verify()


@pytest.mark.parametrize("called", [False, True])
def test_pickles_come_back_whole(dag, images, called):
    if called:
        dag(images)
    again = pickle.loads(pickle.dumps(dag))
    again.verify()
    assert torch.equal(again(images), dag(images))
    assert str(again) == str(dag)


def test_whole_modules_go_through_torch_save(dag, images):
    buffer = io.BytesIO()
    torch.save(dag, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(images), dag(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(model, dag, images, dtype):
    x = images.to(dtype)
    assert torch.equal(dag.to(dtype)(x), model.to(dtype)(x))
    assert {p.dtype for p in dag.parameters()} == {dtype}


def test_another_device(dag, images):
    result = dag.to("meta")(images.to("meta"))
    assert (result.device.type, result.shape) == ("meta", (3, 5))


def test_made_tensors_follow_the_device():
    class Makes(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.zeros(x.shape[0], 1)], 1) + torch.arange(x.shape[1] + 1)

    dag = build_from_unstructured_module(Makes(), torch.randn(2, 3))
    assert dag.to("meta")(torch.empty(4, 3, device="meta")).shape == (4, 4)


def test_autocast_reaches_inside(model, dag, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = dag(images)
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, model(images))


def test_hooks_of_vertices_fire(dag, images):
    seen = []
    vertex = dag.get_vertex_by_name("stem")
    handle = vertex.module.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    dag(images)
    handle.remove()
    dag(images)
    assert seen == [(3, 4, 6, 6)]


def test_a_hook_may_replace_a_value(dag, images):
    dag.get_vertex_by_name("fc").module.register_forward_hook(lambda module, args, output: output * 0)
    assert not dag(images).any()


def test_backward_hooks_of_vertices_fire(dag, images):
    seen = []
    dag.get_vertex_by_name("block.conv").module.register_full_backward_hook(lambda *_: seen.append(1))
    dag(images).sum().backward()
    assert seen == [1]


def test_modes_reach_every_vertex(dag):
    dag.train()
    assert all(module.training for module in dag.modules())
    dag.eval()
    assert not any(module.training for module in dag.modules())


def test_optimizers_train_graph_and_model_alike(model, dag):
    model.train()
    dag.train()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, dag)]
    for step in range(3):
        x = torch.randn(4, 3, 8, 8)
        for module, optimizer in zip((model, dag), optimizers, strict=True):
            torch.manual_seed(step)
            optimizer.zero_grad()
            sum(output.square().sum() for output in module(x)).backward()
            optimizer.step()
    state = dag.state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_distributed_training_of_one_process(dag, images, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        expected = dag(images)
        parallel = DistributedDataParallel(dag)
        result = parallel(images)
        assert torch.equal(result, expected)
        result.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert dag.get_vertex_by_name("stem").module.weight.grad is not None


class Watching(nn.Module):
    """Keeps weak references to what passes, and tells which are still alive."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        result = x * 2
        alive = [reference() is not None for reference, _ in self.seen]
        self.seen.append((weakref.ref(result), alive))
        return result


def test_values_are_freed_after_their_last_use():
    seen = []
    model = nn.Sequential(*(Watching(seen) for _ in range(6)))
    dag = build_from_unstructured_module(model, torch.randn(2, 3), atomic_modules=(Watching,))
    for vertex in dag.inner_vertices:
        vertex.module.seen = seen
    seen.clear()
    gc.disable()
    try:
        with torch.no_grad():
            dag(torch.randn(2, 3))
    finally:
        gc.enable()
    for position, (_, alive) in enumerate(seen):
        assert sum(alive) <= 1, position
        assert not any(alive[:-1])


def test_a_value_read_later_is_kept_until_then():
    seen = []

    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (Watching(seen) for _ in range(4))

        def forward(self, x):
            first = self.a(x)
            return self.d(self.c(self.b(first)) + first)

    dag = build_from_unstructured_module(Skips(), torch.randn(2, 3), atomic_modules=(Watching,))
    for vertex in dag.inner_vertices:
        if isinstance(vertex.module, Watching):
            vertex.module.seen = seen
    seen.clear()
    with torch.no_grad():
        dag(torch.randn(2, 3))
    assert [alive for _, alive in seen] == [[], [True], [True, True], [False, False, False]]


def test_a_graph_that_nobody_holds_is_freed(dag, images):
    dag(images)
    reference = weakref.ref(dag)
    del dag
    gc.collect()
    # The fixture's own reference is the last one.
    assert reference() is not None
    other = copy.deepcopy(reference())
    other(images)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None
