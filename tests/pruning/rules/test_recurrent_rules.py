"""Recurrent layers and cells: inputs, hidden units and projections are pruned in all layers and directions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def last(layers, x):
    return layers.b(layers.rnn(layers.a(x))[0])


LAYERS = {
    "lstm": (nn.LSTM(8, 6, batch_first=True), [6, 8]),
    "gru": (nn.GRU(8, 6, batch_first=True), [6, 8]),
    "rnn": (nn.RNN(8, 6, batch_first=True), [6, 8]),
    "relu": (nn.RNN(8, 6, 2, nonlinearity="relu", batch_first=True), [6, 8]),
    "two_layers": (nn.LSTM(8, 6, 2, batch_first=True, dropout=0.5), [6, 8]),
    "both_directions": (nn.GRU(8, 6, 2, batch_first=True, bidirectional=True), [6, 8]),
    "no_bias": (nn.GRU(8, 6, bias=False, batch_first=True), [6, 8]),
    "projections": (nn.LSTM(8, 6, 3, batch_first=True, bidirectional=True, proj_size=4), [4, 6, 8]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(check, fn, name):
    rnn, orbits = LAYERS[name]
    made = rnn.proj_size or rnn.hidden_size
    net = fn(last, a=nn.Linear(5, 8), rnn=rnn, b=nn.Linear(made * (1 + rnn.bidirectional), 3))
    check(net, torch.randn(2, 7, 5), ops=[type(rnn).__name__.lower()], orbits=orbits)


def test_steps_may_come_first(check, fn):
    net = fn(
        lambda m, x: m.b(m.rnn(m.a(x).transpose(0, 1))[0]), a=nn.Linear(5, 8), rnn=nn.LSTM(8, 6), b=nn.Linear(6, 3)
    )
    check(net, torch.randn(2, 7, 5), orbits=[6, 8])


def test_a_single_sequence(check, fn):
    net = fn(last, a=nn.Linear(5, 8), rnn=nn.GRU(8, 6), b=nn.Linear(6, 3))
    check(net, torch.randn(7, 5), orbits=[6, 8])


def test_final_states(check, fn):
    net = fn(lambda m, x: m.b(m.rnn(m.a(x))[1][0][-1]), a=nn.Linear(5, 8), rnn=nn.LSTM(8, 6, 2, batch_first=True),
             b=nn.Linear(6, 3))  # fmt: skip
    check(net, torch.randn(2, 7, 5), orbits=[6, 8])


def test_states_of_one_layer_start_another(check, fn):
    def forward(m, i):
        x = m.table(i)
        _, state = m.encoder(x)
        return m.b(m.decoder(x, state)[0])

    net = fn(forward, table=nn.Embedding(11, 8), encoder=nn.LSTM(8, 6, batch_first=True),
             decoder=nn.LSTM(8, 6, batch_first=True), b=nn.Linear(6, 3))  # fmt: skip
    check(net, torch.randint(0, 11, (2, 7)), orbits=[6, 8])


def test_learned_states(check, fn):
    def forward(m, x):
        state = tuple(s.expand(4, len(x), 6) for s in (m.h, m.c))
        out, (h, _) = m.rnn(m.a(x), state)
        return m.b(out).mean(1) + m.d(h[-1])

    net = fn(forward, a=nn.Linear(5, 8), rnn=nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True),
             b=nn.Linear(12, 3), d=nn.Linear(6, 3), h=nn.Parameter(torch.randn(4, 1, 6)),
             c=nn.Parameter(torch.randn(4, 1, 6)))  # fmt: skip
    check(net, torch.randn(2, 7, 5), orbits=[6, 8])


CELLS = {"lstm_cell": nn.LSTMCell(8, 6), "gru_cell": nn.GRUCell(8, 6), "rnn_cell": nn.RNNCell(8, 6)}


@pytest.mark.parametrize("name", CELLS)
def test_cells(check, fn, name):
    """Two steps, the second from the state of the first."""

    def forward(m, x):
        x = m.a(x)
        state = m.cell(x)
        after = m.cell(F.relu(x), state)
        return m.b(after[0] if name == "lstm_cell" else after)

    check(fn(forward, a=nn.Linear(5, 8), cell=CELLS[name], b=nn.Linear(6, 3)), torch.randn(2, 5), ops=[name],
          orbits=[6, 8])  # fmt: skip


def test_residual_recurrence(check, fn):
    """The sum ties the hidden units to the inputs of the layer."""

    def forward(m, x):
        x = m.a(x)
        return m.b(x + m.rnn(x)[0])

    net = fn(forward, a=nn.Linear(5, 8), rnn=nn.GRU(8, 8, batch_first=True), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])
