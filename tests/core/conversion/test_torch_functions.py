"""Torch functions whose arguments come in many shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

FUNCTIONS = {
    "where of tensors": lambda x: torch.where(x > 0, x, x * 0.1),
    "where of constants": lambda x: torch.where(x > 0, 1.0, x),
    "where as a method": lambda x: x.where(x < 1, torch.tensor(0.5)),
    "masks combined": lambda x: x * ((x > -1) & (x < 1) | ~(x == 0)).float(),
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x),
    "einsum with an ellipsis": lambda x: torch.einsum("...i,ij->...j", x, torch.eye(6)),
    "chunk that does not divide": lambda x: torch.cat([part * i for i, part in enumerate(x.chunk(4, 1))], 1),
    "split that does not divide": lambda x: [part.sum(1) for part in torch.split(x, 4, 1)],
    "split by sizes": lambda x: torch.split(x, [1, 2, 3], dim=-1),
    "tensor_split": lambda x: torch.tensor_split(x, 4, dim=1),
    "unbind": lambda x: sum(x.unbind(1)),
    "iteration": lambda x: sum(row * i for i, row in enumerate(x.t())),
    "fft": lambda x: torch.fft.irfft(torch.fft.rfft(x, norm="ortho") * 0.5, n=6, norm="ortho"),
    "fft2 real part": lambda x: torch.fft.fft2(x.view(-1, 2, 3)).real,
    "complex views": lambda x: torch.view_as_real(torch.view_as_complex(x.view(-1, 3, 2)) * (1 + 2j)),
    "polar": lambda x: torch.polar(x.abs(), x).imag,
    "topk and gather": lambda x: torch.gather(x, 1, x.topk(2, dim=1).indices),
    "max along": lambda x: (x.max(1)[0], x.max(dim=1).indices, x.amax(1), x.max()),
    "sort and argsort": lambda x: (x.sort(1, descending=True).values, x.argsort(1)),
    "reductions": lambda x: x.mean() + x.sum((0, 1)) + x.std(1).mean() + x.var(dim=1, unbiased=False).sum() + x.norm(),
    "norms": lambda x: functional.normalize(x, dim=-1) + torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "cumulative": lambda x: x.cumsum(1) + torch.cumprod(x, 1),
    "logsumexp": lambda x: torch.logsumexp(x, dim=1),
    "softmax": lambda x: functional.log_softmax(x, -1) + torch.softmax(x, dim=1) + x.softmax(-1),
    "arithmetic with numbers": lambda x: 2 - x + 1 / (x.abs() + 1) - (x.detach() - 3) // 2 + x % 2 + 2**x + x**2,
    "addcmul and lerp": lambda x: torch.addcmul(x, x, x, value=0.5) + torch.lerp(x, x * 2, 0.3),
    "addmm": lambda x: torch.addmm(x, x, torch.eye(6), beta=0.5, alpha=2),
    "add with alpha": lambda x: torch.add(x, x, alpha=2) - torch.sub(x, x, alpha=0.5),
    "baddbmm": lambda x: torch.baddbmm(x.unsqueeze(1), x.unsqueeze(1), torch.eye(6).expand(x.shape[0], 6, 6)),
    "one hot of a constant count": lambda x: functional.one_hot(x.argmax(1), 6).float() * x,
    "repeat and tile": lambda x: x.repeat(1, 2) + x.tile((2,)) + x.repeat_interleave(2, dim=1),
    "expand and broadcast": lambda x: x.unsqueeze(1).expand(-1, 3, -1) + x[:, None].broadcast_to(x.shape[0], 3, 6),
    "roll and flip": lambda x: torch.roll(x, 2, 1) + x.flip(1) + x.roll((1,), dims=(0,)),
    "pad": lambda x: (
        functional.pad(x, (1, 2), value=3.0).sum(1) + functional.pad(x[:, None], (1, 1), "replicate").sum((1, 2))
    ),
    "unfold": lambda x: x.unfold(1, 3, 1).sum(-1),
    "clamp": lambda x: x.clamp(-1, 1) + x.clamp(min=0) + torch.clamp(x, max=0.5) + x.clamp(min=x * 0.5),
    "casts": lambda x: x.double().float() + x.to(torch.float64).type_as(x) + x.long() + x.int().to(x.dtype),
    "movedim": lambda x: x.view(-1, 2, 3).movedim(1, 2).swapaxes(1, 2).transpose(-1, -2).permute(0, 2, 1),
    "matrix transposes": lambda x: x.T @ x + (x.t() @ x).mT,
    "stack and concatenate": lambda x: (
        torch.stack([x, x], 1).flatten(1) + torch.hstack([x, x]) + torch.concat((x, x), -1)
    ),
    "index with tensors": lambda x: (
        x[:, torch.tensor([0, 2])] + x[..., [1, 3]] + x.index_select(1, torch.tensor([4, 5]))
    ),
    "index with steps": lambda x: x[:, ::2] + x[:, 1::2] + x[:, -3:] + x[:, :-3],
    "keywords of numpy": lambda x: torch.cat([x.mean(axis=1, keepdims=True), x.softmax(axis=1)], axis=1).amax(axis=1),
    "newaxis and ellipsis": lambda x: x[:, None, ..., None].squeeze(-1).squeeze(1),
    "masked by buffers": lambda x: x[:, torch.tensor([True, False] * 3)],
    "activations": lambda x: (
        functional.gelu(x, approximate="tanh") + functional.elu(x, 0.5) + functional.glu(x).sum(1, True)
    ),
    "hard tanh": lambda x: (
        functional.hardtanh(x) + functional.hardtanh(x, -0.5, 0.5) + functional.hardtanh(x, max_val=0.1, inplace=False)
    ),
    "functional dropout": lambda x: functional.dropout(x, 0.5, training=True),
    "functional layer norm": lambda x: functional.layer_norm(x, (6,)) + functional.rms_norm(x, (6,)),
    "distance": lambda x: torch.cdist(x, x) + functional.cosine_similarity(x, x * 2, dim=1)[:, None],
    "bilinear forms": lambda x: torch.bmm(x.unsqueeze(1), x.unsqueeze(2)).squeeze() + (x * x).sum(1),
    "count": lambda x: (x > 0).sum(1).float() + torch.count_nonzero(x, dim=1) + (x > 0).any(1).float(),
    "tril": lambda x: torch.tril(x.unsqueeze(1) * x.unsqueeze(2), -1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_what_the_model_gives(faithful, name):
    faithful(FUNCTIONS[name], lambda b: torch.randn(b, 6), batches=(2, 1, 5), relative=1e-6)


IMAGES = {
    "functional convolution": lambda x: functional.conv2d(x, torch.ones(4, 3, 3, 3), padding=1, stride=2),
    "grouped convolution with a computed weight": lambda x: functional.conv2d(
        x.reshape(1, -1, 8, 8), x.mean((2, 3)).reshape(-1, 1, 1, 1), groups=x.shape[0] * 3
    ).view(x.shape),
    "pooling": lambda x: (
        functional.max_pool2d(x, 2, 2) + functional.avg_pool2d(x, 3, 2, 1) + functional.adaptive_avg_pool2d(x, 4)
    ),
    "global pooling by size": lambda x: functional.avg_pool2d(x, x.shape[2:]),
    "pooling with indices": lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
    "pixel shuffle": lambda x: (
        functional.pixel_shuffle(x.repeat(1, 4, 1, 1), 2) + functional.pixel_unshuffle(x, 1).mean()
    ),
    "grid sample": lambda x: functional.grid_sample(
        x,
        functional.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), x.shape, align_corners=False),
        align_corners=False,
    ),
    "unfold and fold": lambda x: functional.fold(functional.unfold(x, 2, stride=2), (8, 8), 2, stride=2),
    "local response norm": lambda x: functional.local_response_norm(x, 3),
    "instance norm": functional.instance_norm,
    "windows": lambda x: x.view(x.shape[0], 3, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 3),
    "channel shuffle": lambda x: x.view(x.size(0), 3, 1, 8, 8).transpose(1, 2).contiguous().view(x.size(0), -1, 8, 8),
    "flatten": lambda x: torch.flatten(x, 1) + x.flatten(start_dim=1) + x.reshape(len(x), -1),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_functions_give_what_the_model_gives(faithful, name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return IMAGES[name](self.conv(x))

    faithful(Net(), lambda b: torch.randn(b, 3, 8, 8), batches=(2, 1, 5), relative=1e-6)
