"""Recurrent layers and cells have no axis rule: everything that they touch is frozen (O16)."""

from __future__ import annotations

from torch_dag_pruning.rules.touching import kept_whole

RECURRENT = kept_whole("core.lstm", "core.gru", "core.rnn", "core.lstm_cell", "core.gru_cell", "core.rnn_cell")
