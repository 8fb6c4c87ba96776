"""Models that switch autocast on inside: the graph makes the same casts, and needs no autocast."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, TraceError
from torch_dag_core.ops.arithmetic import Cast
from torch_dag_core.ops.contraction import LinearFunction
from torch_dag_core.serialization import load


class Block(nn.Module):
    """A module called in a block of its own."""

    def __init__(self, inner, dtype=torch.bfloat16, **options):
        super().__init__()
        self.inner, self.block = inner, {"dtype": dtype, **options}

    def forward(self, *args):
        with torch.autocast("cpu", **self.block):
            return self.inner(*args)


class ToSingle(nn.Module):
    def forward(self, x):
        return x.float()


def on(function, **options):
    def run(x):
        with torch.autocast("cpu", **options):
            return function(x)

    return run


def rows(batch):
    return torch.randn(batch, 6)


def images(batch):
    return torch.randn(batch, 4, 8, 8)


def tokens(batch):
    return torch.randn(batch, 5, 8)


def wide(x):
    """Return products in half precision, of the shape of ``x``."""
    return x @ (torch.arange(36).reshape(6, 6).cos() / 4)


@torch.autocast("cpu", dtype=torch.bfloat16)
def decorated(x):
    return x @ x.t()


def off_in_on(x):
    with torch.autocast("cpu"):
        y = x @ x.T
        with torch.autocast("cpu", enabled=False):
            z = x @ x.T
        return y, z, x @ x.T


def two_types(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x.T
        with torch.autocast("cpu", dtype=torch.float16):
            z = x @ x.T
        return y, z, x @ x.T


def asked(x):
    with torch.autocast("cpu"):
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16:
            return wide(x) + 1
        return wide(x)


def in_place(x):
    with torch.autocast("cpu"):
        y = wide(x)
        y += 1
        x[:, :3] = y[:, :3]
        return y.relu_(), x


def by_type(x):
    with torch.autocast("cpu"):
        y = wide(x)
    return y.float() if y.dtype == torch.bfloat16 else y * 2


def constant(x):
    with torch.autocast("cpu"):
        weight = torch.ones(6, 6) @ torch.full((6, 6), 0.3)
    return x @ weight.float()


FUNCTIONS = {
    "a product": on(lambda x: x @ x.T),
    "a decorated function": decorated,
    "another type": on(lambda x: x @ x.T, dtype=torch.float16),
    "a block switched off inside": off_in_on,
    "a block of another type inside": two_types,
    "a block without the cache of casts": on(wide, cache_enabled=False),
    "a block that knows of itself": asked,
    "writes in place": in_place,
    "a decision on the type": by_type,
    "a constant": constant,
    "a linear function": on(lambda x: functional.linear(x, torch.ones(3, 6) / 3)),
    "a product with a sum": on(lambda x: torch.addmm(torch.ones(6) / 3, x, torch.ones(6, 6) / 7)),
    "a scaled product with a sum": on(lambda x: torch.addmm(x, wide(x), torch.ones(6, 6) / 7, alpha=0.3, beta=0.7)),
    "a batched product with a sum": on(lambda x: torch.baddbmm(x[:, None], x[:, None] / 3, x[:, :, None] * x[:, None])),
    "einsum over rows": on(lambda x: torch.einsum("bi,bj->bij", x, x)),
    "einsum with a matrix": on(lambda x: torch.einsum("bi,ij->bj", x, torch.eye(6) / 3)),
    "attention": on(lambda x: functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])),
    "softmax and layer norm": on(lambda x: functional.layer_norm(wide(x).softmax(-1) + x, (6,)) @ x.T),
    "types that meet": on(lambda x: torch.cat([wide(x), x], 1) + torch.stack([x, wide(x)], 1).flatten(1)),
    "a loss": on(lambda x: functional.mse_loss(wide(x), x, reduction="none")),
    "cross entropy": on(lambda x: functional.cross_entropy(wide(x), x.argmax(1), reduction="none")),
    "sums and powers": on(lambda x: wide(x).sum(1)[:, None] + wide(x).std(1)[:, None] ** 2 + x.logsumexp(1)[0]),
    "normalized rows": on(lambda x: functional.normalize(wide(x)) @ x.T),
    "distances": on(lambda x: torch.cdist(wide(x), x)),
    "double numbers": on(lambda x: x.double() @ x.double().T),
    "whole numbers": on(lambda x: x.argmax(1)[:, None] * 2 + x.long()),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_in_a_block_are_the_same_in_the_graph_and_in_its_file(name, reloaded):
    assert reloaded(FUNCTIONS[name], rows).input_spec.assumptions is not None


def tied():
    layer = nn.Linear(6, 6)
    return Block(nn.Sequential(layer, nn.ReLU(), layer, nn.GELU(), nn.Linear(6, 2)))


MODULES = {
    "layers": (lambda: Block(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))), rows),
    "a layer used twice": (tied, rows),
    "a convolution of lines": (lambda: Block(nn.Conv1d(5, 3, 3)), tokens),
    "a convolution with a reflected border": (lambda: Block(nn.Conv2d(4, 6, 3, 1, 1, padding_mode="reflect")), images),
    "a transposed convolution": (lambda: Block(nn.ConvTranspose2d(4, 6, 3, stride=2)), images),
    "batch norm": (lambda: Block(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU())), images),
    "other norms": (lambda: Block(nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.InstanceNorm2d(6))), images),
    "pools": (lambda: Block(nn.Sequential(nn.Conv2d(4, 6, 3), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1))), images),
    "an upsampling": (lambda: Block(nn.Sequential(nn.Conv2d(4, 6, 3), nn.Upsample(scale_factor=2))), images),
    "layer norm": (lambda: Block(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))), tokens),
    "slopes": (lambda: Block(nn.Sequential(nn.Linear(6, 6), nn.PReLU())), rows),
    "dropout": (lambda: Block(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))), rows),
    "attention of two": (lambda: Block(nn.MultiheadAttention(8, 2, batch_first=True)), lambda b: (tokens(b),) * 3),
    "a block in a block": (lambda: Block(nn.Sequential(Block(nn.Linear(6, 6), enabled=False), nn.Linear(6, 6))), rows),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_in_a_block_are_the_same_in_the_graph_and_in_its_file(name, reloaded):
    make, inputs = MODULES[name]
    model = make()
    dag = reloaded(model, inputs)
    assert dag.state_dict().keys() <= model.state_dict().keys()


@pytest.mark.parametrize("name", ["layers", "a layer used twice", "layer norm", "a block in a block"])
@pytest.mark.parametrize("cache", [True, False])
def test_gradients_are_equal_bit_for_bit(name, cache):
    make, inputs = MODULES[name]
    model, x = make(), inputs(3)
    model.block["cache_enabled"] = cache
    dag = build_from_unstructured_module(model, inputs(2))
    found = []
    for each in (model, dag):
        (each(x).float() ** 2).sum().backward()
        found.append({key: value.grad for key, value in each.state_dict(keep_vars=True).items()})
    assert found[1]
    assert all(torch.equal(found[0][key], gradient) for key, gradient in found[1].items())


def test_a_weight_is_cast_once_in_a_block_and_anew_in_the_next():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6, bias=False)

        def forward(self, x):
            with torch.autocast("cpu"):
                x = self.fc(self.fc(x))
            with torch.autocast("cpu"):
                return self.fc(x)

    model = Model()
    dag = build_from_unstructured_module(model, rows(2))
    casts = [v for v in dag.inner_vertices if isinstance(v.module, Cast) and v.predecessors[0].name == "fc.weight"]
    assert [len(cast.uses) for cast in casts] == [2, 1]
    x = rows(4)
    grads = []
    for each in (model, dag):
        each(x).float().pow(3).sum().backward()
        grads.append(each.state_dict(keep_vars=True)["fc.weight"].grad)
    assert torch.equal(*grads)


def test_a_block_is_the_casts_that_one_would_write_by_hand():
    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 3)

        def forward(self, x):
            half = torch.bfloat16
            return functional.linear(x.to(half), self.inner.weight.to(half), self.inner.bias.to(half))

    dags = [build_from_unstructured_module(model, rows(2)) for model in (Block(nn.Linear(6, 3)), ByHand())]
    kinds = [[(type(v.module), len(v.predecessors)) for v in dag.inner_vertices] for dag in dags]
    assert sorted(map(str, kinds[0])) == sorted(map(str, kinds[1]))
    assert (LinearFunction, 3) in kinds[0]


def test_a_layer_outside_of_the_block_too_keeps_one_weight(reloaded):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            with torch.autocast("cpu"):
                y = self.fc(x)
            return self.fc(y.float())

    reloaded(Model(), rows)


def test_a_block_in_training_alone(reloaded):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            with torch.autocast("cpu", enabled=self.training):
                x = self.fc(x)
            return self.head(x.float())

    reloaded(Model(), rows)


def test_a_submodule_with_a_block_used_twice(reloaded):
    reloaded(nn.Sequential(block := Block(nn.Linear(6, 6)), nn.ReLU(), block, Block(nn.Linear(6, 2))), rows)


def test_blocks_of_other_devices_change_nothing(reloaded):
    def run(x):
        with torch.autocast("mps" if torch.backends.mps.is_available() else "xpu", dtype=torch.float16):
            return x @ x.T

    assert all(not isinstance(vertex.module, Cast) for vertex in reloaded(run, rows).inner_vertices)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_in_a_block(reentrant, faithful):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            with torch.autocast("cpu"):
                return checkpoint(self.head, self.fc(x), use_reentrant=reentrant)

    faithful(Model(), rows)


def test_a_graph_as_a_part_of_a_model_is_cast_as_its_source_is(faithful):
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model = Block(build_from_unstructured_module(inner, rows(2)))
    faithful(model, rows)
    assert torch.equal(model(x := rows(3)), Block(inner)(x))


def test_a_weight_that_is_read_without_gradient_first_has_one_later():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            with torch.autocast("cpu"):
                with torch.no_grad():
                    y = self.fc(x)
                return self.fc(y)

    model, x = Model(), rows(3)
    dag = build_from_unstructured_module(model, rows(2))
    gradients = []
    for each in (model, dag):
        each(x).float().pow(2).sum().backward()
        gradients.append(each.state_dict(keep_vars=True)["fc.weight"].grad)
    assert torch.equal(model(x), dag(x))
    if gradients[0] is None:
        pytest.skip("this torch keeps a cast without gradient for calls that need one")
    assert torch.equal(*gradients)


# Under the autocast of the caller -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["layers", "a layer used twice", "batch norm"])
def test_the_same_under_the_callers_autocast_of_the_same_type(name):
    make, inputs = MODULES[name]
    first, x = make().eval(), inputs(3)
    model = nn.Sequential(first, nn.Flatten(), ToSingle(), nn.Linear(first(x)[0].numel(), 3)).eval()
    dag = build_from_unstructured_module(model, inputs(2)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x), dag(x))


def test_autocast_of_the_caller_to_another_type_is_refused(tmp_path):
    dag = build_from_unstructured_module(Block(nn.Linear(6, 3)), rows(2))
    dag.save(tmp_path / "dag.safetensors")
    for each in (dag, load(tmp_path / "dag.safetensors")):
        with torch.autocast("cpu", dtype=torch.float16), pytest.raises(InputError, match=r"!= torch\.bfloat16"):
            each(rows(2))


def test_a_block_of_the_callers_type_needs_that_type():
    dag = build_from_unstructured_module(Block(nn.Linear(6, 3), None), rows(2))
    before = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        with pytest.raises(InputError, match=r"get_autocast_dtype\('cpu'\) == torch\.bfloat16"):
            dag(rows(2))
    finally:
        torch.set_autocast_dtype("cpu", before)


def test_conversion_under_autocast_gives_the_same_graph():
    model = Block(nn.Linear(6, 3))
    with torch.autocast("cpu"):
        dag = build_from_unstructured_module(model, rows(2))
    assert torch.equal(dag(x := rows(3)), model(x))


def test_half_precision_in_and_around_a_block_is_left_alone(faithful):
    faithful(on(lambda x: (x.bfloat16() @ x.bfloat16().T).float() + x @ x.T), rows)


# Refused --------------------------------------------------------------------------------------------------------


class Square(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient


def by_function(x):
    before = torch.is_autocast_enabled("cpu")
    torch.set_autocast_enabled("cpu", True)
    try:
        return (x @ x.T).float()
    finally:
        torch.set_autocast_enabled("cpu", before)


REFUSED = {
    "recurrent layers": (lambda: Block(nn.LSTM(8, 8)), tokens, "what autocast does to lstm .* casts between its steps"),
    "casts inside of a kernel": (lambda: Block(nn.Bilinear(6, 6, 3)), lambda b: (rows(b), rows(b)), "inside of its"),
    "torch's own shortcut": (
        lambda: Block(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval(), tokens,
        r"shortcut for TransformerEncoderLayer \('inner'\) gives another type under torch.no_grad",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_casts_of_operands_cannot_state_is_refused_by_name(name):
    make, inputs, message = REFUSED[name]
    with pytest.raises(TraceError, match=message):
        build_from_unstructured_module(make(), inputs(2))


def test_other_ways_to_switch_autocast_are_refused(model_of):
    line = by_function.__code__.co_firstlineno + 4
    with pytest.raises(TraceError, match=rf"switches autocast other than by a block.*test_autocast\.py:{line};"):
        build_from_unstructured_module(model_of(by_function), rows(2))
    assert not torch.is_autocast_enabled("cpu")


def test_functions_with_a_gradient_of_their_own_are_refused_in_a_block(model_of):
    with pytest.raises(TraceError, match="custom autograd function Square is called inside of a block that switches"):
        build_from_unstructured_module(model_of(on(Square.apply)), rows(2))


def test_an_atomic_module_is_refused_in_a_block_but_may_hold_one(faithful):
    class Mine(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.dtype == torch.float32 else super().forward(x) * 2

    class Whole(Block):
        pass

    with pytest.raises(TraceError, match="the atomic module 'inner' is called inside of a block that switches autoc"):
        build_from_unstructured_module(Block(Mine(6, 3)), rows(2), atomic_modules=(Mine,))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = Whole(nn.Linear(6, 6))

        def forward(self, x):
            y = self.whole(x)
            return y.float() * 3 if y.dtype == torch.bfloat16 else y

    faithful(Model(), rows, atomic_modules=(Whole,))


def test_a_model_with_a_block_is_left_as_it_was():
    model = Block(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))
    before, inside = copy.deepcopy(model.state_dict()), (torch.autocast.__init__, torch.autocast.__enter__)
    build_from_unstructured_module(model, images(2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (torch.autocast.__init__, torch.autocast.__enter__) == inside
    assert not torch.is_autocast_enabled("cpu")
