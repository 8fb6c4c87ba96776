"""Modules that are more than a forward: hooks, parametrizations, attention, recurrences, own gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError


def rows(batch):
    return torch.randn(batch, 6)


def tokens(batch):
    return torch.randn(batch, 5, 8)


def test_hooks_on_leaf_modules_are_traced_through(faithful):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output * 2 + module.weight.sum())
    model[1].register_forward_pre_hook(lambda module, args: (args[0] - 1,))
    faithful(model, rows)


def test_hooks_on_containers_and_on_the_model(faithful):
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 6)), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output + args[0])
    model.register_forward_hook(lambda module, args, output: {"out": output})
    faithful(model, rows)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).transpose(-1, -2)


@pytest.mark.parametrize("kind", ["weight_norm", "orthogonal_free", "own"])
def test_parametrizations(faithful, kind):
    layer = nn.Linear(6, 6)
    if kind == "weight_norm":
        parametrizations.weight_norm(layer)
    elif kind == "own":
        parametrize.register_parametrization(layer, "weight", Symmetric())
    else:
        parametrize.register_parametrization(layer, "bias", nn.Softplus())
    faithful(nn.Sequential(layer, nn.ReLU()), rows, relative=1e-6)


class Doubled(torch.autograd.Function):
    """Saves memory, and nothing else."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * (s * (1 + x * (1 - s)))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(6, 6), function

    def forward(self, x):
        return self.function.apply(self.fc(x))


def test_autograd_functions_that_only_save_memory_are_traced_through(faithful):
    faithful(Applies(Doubled), rows, relative=1e-6)


def test_autograd_functions_with_a_gradient_of_their_own_are_refused():
    with pytest.raises(TraceError, match="StraightThrough has a gradient of its own, which a graph cannot keep"):
        build_from_unstructured_module(Applies(StraightThrough), rows(2))


def test_autograd_functions_inside_atomic_modules_are_kept(faithful):
    model = nn.Sequential(Applies(StraightThrough), nn.Linear(6, 6))
    faithful(model, rows, atomic_modules=(Applies,))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_are_traced_through(faithful, reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.fc = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 6)

        def forward(self, x):
            return checkpoint(self.block, self.fc(x), use_reentrant=reentrant)

    faithful(Checkpointed(), rows)


def test_gradients_stop_where_the_model_stops_them(faithful):
    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            with torch.no_grad():
                target = self.teacher(self.student(x)).tanh()
            return self.head(self.student(x) - target), target

    model = Teacher()
    dag = faithful(model, rows)
    dag(rows(3))[0].sum().backward()
    assert dag.get_vertex_by_name("teacher").module.weight.grad is None


ATTENTIONS = {
    "self": lambda m, x: m(x, x, x)[0],
    "self without weights": lambda m, x: m(x, x, x, need_weights=False)[0],
    "weights": lambda m, x: m(x, x, x)[1],
    "weights of each head": lambda m, x: m(x, x, x, average_attn_weights=False)[1],
    "cross": lambda m, x: m(x, x[:, :3] * 2, x[:, :3])[0],
    "boolean mask": lambda m, x: m(x, x, x, attn_mask=torch.ones(5, 5, dtype=torch.bool).triu(1))[0],
    "float mask without weights": lambda m, x: m(
        x, x, x, attn_mask=torch.zeros(5, 5).fill_diagonal_(-3.0), need_weights=False
    )[0],
    "causal": lambda m, x: m(
        x, x, x, attn_mask=nn.Transformer.generate_square_subsequent_mask(5), is_causal=True, need_weights=False
    )[0],
    "padding mask": lambda m, x: m(x, x, x, key_padding_mask=x[..., 0] > 1.5)[0],
    "both masks": lambda m, x: m(
        x, x, x, key_padding_mask=x[..., 0] > 1.5, attn_mask=torch.zeros(5, 5, dtype=torch.bool).fill_diagonal_(False)
    )[0],
}


class Attends(nn.Module):
    def __init__(self, how, **options):
        super().__init__()
        self.attention, self.how = nn.MultiheadAttention(8, 2, **options), how

    def forward(self, x):
        return self.how(self.attention, x)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_multi_head_attention(faithful, name):
    faithful(Attends(ATTENTIONS[name], batch_first=True), tokens, relative=2e-6)


@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bias": False}, {"batch_first": True, "dropout": 0.3}])
def test_multi_head_attention_of_all_makes(faithful, options):
    faithful(Attends(ATTENTIONS["self"], **options), tokens, relative=2e-6)


def test_multi_head_attention_of_other_widths(faithful):
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)

        def forward(self, x, k, v):
            return self.attention(x, k, v)

    faithful(Cross(), lambda b: (tokens(b), torch.randn(b, 3, 6), torch.randn(b, 3, 4)), relative=2e-6)


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_encoders(faithful, norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    faithful(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), tokens, relative=5e-6)


def test_transformer_decoders(faithful):
    layer = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    faithful(nn.TransformerDecoder(layer, 1), lambda b: (tokens(b), torch.randn(b, 4, 8)), relative=5e-6)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn, self.fc = kind(8, 6, batch_first=True, **options), nn.Linear(6, 3)

    def forward(self, x):
        out, state = self.rnn(x)
        return self.fc(out), state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_leaves_with_states(faithful, kind):
    dag = faithful(Recurrent(kind), tokens)
    assert type(dag.get_vertex_by_name("rnn").module) is kind


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_with_a_given_state(faithful, kind):
    class Continues(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(8, 6, num_layers=2, batch_first=True)

        def forward(self, x, h, c):
            state = (h, c) if kind is nn.LSTM else h + c
            out, after = self.rnn(x, state)
            return self.rnn(out.new_zeros(x.shape) + x, after)

    faithful(Continues(), lambda b: (tokens(b), torch.randn(2, b, 6), torch.randn(2, b, 6)), batches=(2,))


def test_recurrent_cells_in_a_loop(faithful):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTMCell(8, 6)

        def forward(self, x):
            h = c = x.new_zeros(x.shape[0], 6)
            for step in x.unbind(1):
                h, c = self.cell(step, (h, c))
            return h, c

    faithful(Loop(), tokens, relative=1e-6)


def test_a_leaf_called_with_a_gap_between_its_tensors():
    class Gap(nn.Module):
        def forward(self, x, first=None, second=None):
            return x + (0 if first is None else first) - (0 if second is None else second)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gap = Gap()

        def forward(self, x):
            return self.gap(x, second=x * 2)

    model = Net()
    x = rows(2)
    try:
        dag = build_from_unstructured_module(model, x, atomic_modules=(Gap,))
    except TraceError as error:
        assert "'gap'" in str(error) or "Gap" in str(error)  # noqa: PT017
    else:
        assert torch.equal(dag(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_types(faithful, dtype):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
            self.scale = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x):
            y = self.bn(self.conv(x)) * self.scale + x.new_ones(1)
            return self.fc(y.mean((2, 3)) * 0.5).float()

    faithful(Net().to(dtype), lambda b: torch.randn(b, 3, 8, 8, dtype=dtype))


def test_a_model_that_is_one_layer(faithful):
    for model in (nn.Linear(6, 6), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.ReLU(), nn.Identity(), nn.Dropout(0.5)):
        dag = faithful(model, rows)
        dag.load_state_dict(model.state_dict(), strict=True)
        assert dag.state_dict().keys() == model.state_dict().keys()


def test_a_graph_is_converted_to_its_copy():
    dag = build_from_unstructured_module(nn.Linear(6, 6), rows(2))
    again = build_from_unstructured_module(dag, rows(2))
    assert again is not dag
    assert torch.equal(again(x := rows(3)), dag(x))


def test_a_graph_inside_a_model_stays_one_vertex(faithful):
    inner = build_from_unstructured_module(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), rows(2))
    faithful(nn.Sequential(inner, nn.Linear(6, 2)), rows)


def test_gradient_only_for_some(faithful):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[0].weight.requires_grad_(False)
    dag = faithful(model, rows)
    assert not dag.get_vertex_by_name("0").module.weight.requires_grad


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace. is deprecated")
def test_calls_that_the_trace_cannot_see_are_refused():
    scripted = torch.jit.trace(lambda x: x * 2 + 1, rows(2))

    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.run = nn.Linear(6, 6), [scripted]

        def forward(self, x):
            return self.run[0](self.fc(x))

    with pytest.raises(TraceError, match=r"a call that the trace cannot see|is no op of the vocabulary"):
        build_from_unstructured_module(Scripted(), rows(2))
