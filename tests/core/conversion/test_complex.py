"""Complex tensors, and the attributes of tensors that are tensors themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def matrices(x):
    return x.view(-1, 2, 3)


FUNCTIONS = {
    "real of a real tensor": lambda x: x.real * 2,
    "T": lambda x: x.T,
    "mT": lambda x: matrices(x).mT,
    "H of a real tensor": lambda x: x.H @ x,
    "mH of real tensors": lambda x: matrices(x).mH,
    "real and imag": lambda x: torch.fft.fft(x).real - torch.fft.fft(x).imag,
    "real and imag as functions": lambda x: torch.real(torch.fft.fft(x)) - torch.imag(torch.fft.fft(x)),
    "H": lambda x: torch.fft.fft(x).H,
    "mH": lambda x: torch.fft.fft(matrices(x)).mH,
    "adjoint": lambda x: torch.fft.fft(matrices(x)).adjoint(),
    "T of complex": lambda x: torch.fft.fft(x).T,
    "conjugate": lambda x: (torch.fft.fft(x) * torch.fft.fft(x).conj()).real,
    "angle and magnitude": lambda x: torch.fft.fft(x).angle() + torch.fft.fft(x).abs(),
    "view as real": lambda x: torch.view_as_real(torch.fft.fft(x)),
    "view as complex": lambda x: torch.view_as_complex(x.view(-1, 3, 2)).imag,
    "complex": lambda x: torch.complex(x, x * 2),
    "polar": lambda x: torch.polar(x.abs(), x),
    "complex number": lambda x: x * (1 + 2j),
    "cast to complex": lambda x: (x.to(torch.complex64) @ torch.eye(6, dtype=torch.complex64)).real,
    "short time": lambda x: torch.stft(x, 4, window=torch.hann_window(4), return_complex=True).abs(),
    "question asked first": lambda x: x.real if torch.is_complex(x) else x + 1,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_what_the_model_gives(reloaded, name):
    reloaded(FUNCTIONS[name], lambda b: torch.randn(b, 6), relative=1e-6)


class Filter(nn.Module):
    """A global filter: complex weights kept as pairs, as complex numbers, and in a buffer."""

    def __init__(self):
        super().__init__()
        self.pairs, self.weight = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.register_buffer("offset", torch.randn(4, dtype=torch.complex64))

    def forward(self, x):
        spectrum = torch.fft.rfft(x, norm="ortho") * torch.view_as_complex(self.pairs) * self.weight + self.offset
        return torch.fft.irfft(spectrum, n=6, norm="ortho")


def test_complex_parameters_and_buffers(reloaded):
    reloaded(Filter(), lambda b: torch.randn(b, 6), relative=1e-6)


def test_complex_layers_and_inputs(reloaded):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6, dtype=torch.complex64)

        def forward(self, z):
            z = self.fc(z)
            return z.real, z.imag, z

    reloaded(Net(), lambda b: torch.randn(b, 6, dtype=torch.complex64), relative=1e-6)


def written_through(attribute):
    def write(x):
        y = x.clone()
        getattr(y, attribute)[0] = 1.0
        getattr(y, attribute).mul_(2)
        return y

    return write


@pytest.mark.parametrize("attribute", ["T", "mT"])
def test_writes_through_a_transposed_view(faithful, attribute):
    faithful(written_through(attribute), lambda b: torch.randn(b, 6))
