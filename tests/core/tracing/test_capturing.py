"""Code that asks whether it may look at the content of tensors is told that it may not, and only by a trace."""

from __future__ import annotations

from threading import Thread

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def answer(monkeypatch):
    """Answer as where no stream is captured; the real function needs a driver."""

    def is_current_stream_capturing():
        return False

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", is_current_stream_capturing)
    return is_current_stream_capturing


class Masked(nn.Module):
    """Leave a mask out where it hides nothing, unless a stream is being captured."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask):
        if not torch.cuda.is_current_stream_capturing() and bool(mask.all()):
            return self.fc(x)
        return self.fc(x) * mask


def inputs(batch):
    mask = torch.ones(batch, 4)
    mask[:, batch % 4] = 0
    return torch.randn(batch, 4), mask


def test_models_that_look_at_masks_are_followed(reloaded, answer):
    dag = reloaded(Masked(), inputs)
    assert [vertex.name for vertex in dag.inner_vertices] == ["fc", "mul"]
    assert torch.cuda.is_current_stream_capturing is answer


def test_other_threads_are_told_the_truth(faithful):
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.answers = nn.Linear(4, 4), []

        def forward(self, x):
            thread = Thread(target=lambda: answers.append(torch.cuda.is_current_stream_capturing()))
            thread.start()
            thread.join()
            return self.fc(x)

    answers: list[bool] = []
    faithful(Asking(), lambda n: torch.randn(n, 4))
    assert answers
    assert not any(answers)
