from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.both_modes import join_modes
from torch_dag_core.conversion.folding import changing_constants
from torch_dag_core.conversion.free_sizes import FreeSize, SizeError
from torch_dag_core.conversion.joining import ByMode, Sizes
from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.recording import FunctionCall, Held, Input, Pick, Ref
from torch_dag_core.tracing.run_settings import RunSettings
from torch_dag_core.tracing.trace import LEAF, THROUGH, trace


class Counted(nn.Module):
    """Writes a buffer in training, reshapes by the batch size, and drops at another rate in each mode."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        x = self.fc(x)
        if self.training:
            self.mean.mul_(0.5).add_(x.mean(0), alpha=0.5)
        first, second = x.chunk(2, dim=1)
        first = nn.functional.dropout(first, 0.5, self.training)
        return torch.cat([first, second], 1).reshape(x.shape[0], 2, 3) - self.mean[:3]


def record(model, batch=4, *, training=False):
    def treatment(module):
        return LEAF if isinstance(module, nn.Linear) else THROUGH

    return trace(model, (torch.ones(batch, 6),), {}, ["x"], treatment, RunSettings(training=training))


def calls(recording):
    return [entry for entry in recording.entries if isinstance(entry, FunctionCall)]


def content(recording):
    """Return all that a recording holds, in a form that can be compared."""
    return [
        (id(entry), str(entry), entry.operands, id(entry.outcome.tensor), entry.outcome.is_constant)
        for entry in recording.entries
    ]


def test_entries_refer_to_earlier_ones():
    recording = record(Counted())
    for number, entry in enumerate(recording.entries):
        assert all(operand < number for operand in entry.operands)
    assert isinstance(recording.entries[0], Input)
    assert len(recording.outputs) == 1


def test_a_recording_cannot_be_changed():
    recording = record(Counted())
    with pytest.raises(dataclasses.FrozenInstanceError):
        recording.outputs = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recording.entries[0].name = "y"
    with pytest.raises(dataclasses.FrozenInstanceError):
        recording.entries[0].outcome.shape = (1,)
    with pytest.raises(TypeError):
        recording.entries[0] = recording.entries[1]


def test_facts_of_an_entry():
    split = next(entry for entry in calls(record(Counted())) if entry.name == "chunk")
    assert split.outcome.items == ((4, 3), (4, 3))
    assert split.outcome.shape is None
    assert split.origin.scope == ""
    assert split.origin.source.startswith(__file__)
    assert split.origin.gradient
    assert split.keywords == {"dim": 1}


def test_several_results_are_picked():
    recording = record(Counted())
    picks = [entry for entry in recording.entries if isinstance(entry, Pick)]
    assert [pick.index for pick in picks] == [0, 1]
    assert {pick.source for pick in picks} == {picks[0].source}
    assert recording.entries[picks[0].source.index].name == "chunk"


def test_what_is_held_is_found_by_its_path():
    held = {entry.path: entry for entry in record(Counted()).entries if isinstance(entry, Held)}
    assert held.keys() == {"mean"}
    assert held["mean"].kind == "buffer"
    assert held["mean"].outcome.is_constant


def test_writes_are_noted_where_the_buffer_has_the_value():
    assert record(Counted()).written == {}
    recording = record(Counted(), training=True)
    assert [recording.entries[number].name for number in recording.written["mean"]] == ["mul", "add"]


def test_a_recording_prints_one_line_an_entry():
    recording = record(Counted(), training=True)
    lines = str(recording).splitlines()
    assert len(lines) == len(recording.entries) + 1
    assert lines[0].startswith("%0 = input x: float32 (4, 6); in the model at ")
    assert lines[1].startswith("%1 = module fc(%0): float32 (4, 6); in the model at ")
    assert any("; writes mean; " in line for line in lines)
    assert lines[-1] == f"return %{recording.outputs[0]}: Slot(index=0)"


def test_joining_changes_no_recording():
    model = Counted()
    recordings = [record(model, batch, training=training) for batch in (13, 11) for training in (False, True)]
    before = [content(recording) for recording in recordings]
    evaluation, training = Sizes.of(recordings[0], recordings[2]), Sizes.of(recordings[1], recordings[3])
    joined = list(join_modes(evaluation, training).calls())
    again = list(join_modes(evaluation, training).calls())
    assert [content(recording) for recording in recordings] == before
    assert [(call.args, call.keywords, call.shape) for call in joined] == [
        (call.args, call.keywords, call.shape) for call in again
    ]


def test_joined_calls_hold_references_free_sizes_and_what_differs_with_the_mode():
    model = Counted()
    recordings = [record(model, batch, training=training) for batch in (13, 11) for training in (False, True)]
    overwritten = frozenset({"mean"})
    modes = [
        dataclasses.replace(Sizes.of(first, second), unfolded=changing_constants(first, overwritten, lambda _: True))
        for first, second in (recordings[::2], recordings[1::2])
    ]
    joined = join_modes(*modes)
    found = {call.entry.name: (number, call) for number, call in enumerate(joined.calls())}
    batch = found["reshape"][1].args[1]
    assert (type(batch), int(batch), batch.values) == (FreeSize, 13, (13, 11))
    assert found["reshape"][1].shape[0].values == (13, 11)
    assert found["dropout"][1].keywords["training"] == ByMode(evaluation=False, training=True)
    assert found["cat"][1].args[0][0] == Ref(found["dropout"][0])
    assert found["add"][1].training_only
    assert not found["sub"][1].training_only


def test_other_calls_at_another_size_are_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.shape[0] == 13 else x * 2

    with pytest.raises(SizeError, match="makes other calls at other input sizes"):
        Sizes.of(record(Branching(), 13), record(Branching(), 11))


def test_values_computed_from_a_buffer_that_changes_are_withdrawn():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(1))

        def forward(self, x):
            return x * (self.scale + 1)

    recording = record(Scaled())
    held, added = (next(i for i, e in enumerate(recording.entries) if e.name == name) for name in ("scale", "add"))
    assert changing_constants(recording, (), lambda _: False) == frozenset()
    assert changing_constants(recording, (), lambda _: True) == {added}
    assert changing_constants(recording, {"scale"}, lambda _: True) == {held, added}


def test_a_decision_on_a_buffer_that_is_overwritten_is_refused():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            return x if self.count + 1 > 0 else x * 2

    recording = record(Deciding())
    assert recording.escapes
    assert changing_constants(recording, (), lambda _: True)
    with pytest.raises(TraceError, match="out of a changing tensor"):
        changing_constants(recording, {"count"}, lambda _: True)


def test_a_view_is_cut_out_again_by_the_call_that_made_it():
    class Rows(nn.Module):
        def forward(self, x):
            x = x * 1
            row = torch.transpose(input=x, dim0=0, dim1=1)
            x.add_(1)
            return row

    recording = record(Rows())
    again = recording.entries[recording.outputs[0]]
    assert again.name == "transpose"
    assert recording.entries[again.operands[0]].name == "add"


def test_a_piece_of_a_constant_that_was_overwritten_is_no_constant():
    class Pieces(nn.Module):
        def forward(self, x):
            table = torch.zeros(6)
            first, _ = table.chunk(2)
            table[0] = x.sum()
            return first

    recording = record(Pieces())
    returned = recording.entries[recording.outputs[0]]
    assert isinstance(returned, Pick)
    assert not returned.outcome.is_constant
