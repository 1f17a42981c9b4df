"""Small networks and a training step of each, as the tests of the training kernels share them.

Plain networks run under autocast too, so that both round to bfloat16, at the same places but for sums and ReLUs: a
relative norm of 2^-5 leaves room for that, a few layers deep; a missing sum or ReLU shows as one of a half.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.kernels.library import find_library
from pipeline.training.layout import to_channels_last

needs_kernels = pytest.mark.skipif(
    find_library() is None, reason="this machine has no training kernels (no compiler, or Linux)"
)
CLOSE = 2**-5
IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)).contiguous(
    memory_format=torch.channels_last
)


class Net(nn.Module):
    """A stem, one convolution with its norm and another one with its own, to be wired by `body`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.conv, self.norm = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.side, self.side_norm = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.act, self.act6, self.dropout = nn.ReLU(inplace=True), nn.ReLU6(), nn.Dropout(0.5)
        self.linear = nn.Linear(16, 5)
        for norm in (self.norm, self.side_norm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.body(self.stem(images)).square().mean((2, 3)))
        return logits

    def body(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def make(kind: type[Net]) -> Net:
    network = kind().train()
    to_channels_last(network)
    return network


def step(network: nn.Module, images: Tensor = IMAGES) -> Tensor:
    """Return the logits of one training step as `fit` runs it, up to the gradients."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        logits: Tensor = network(images)
    F.cross_entropy(logits.float(), torch.arange(len(images)) % 5).backward()
    return logits.detach().float()


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = CLOSE) -> None:
    error = (ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-12)
    assert error <= tolerance, f"a relative error of {error:.3g}"


def assert_steps_alike(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare gradients and moved statistics."""
    given = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is None) == (given[name].grad is None), name
        if parameter.grad is not None and given[name].grad is not None:
            assert_close(parameter.grad, given[name].grad)
    for (name, buffer), moved in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert_close(buffer, moved, 0.0 if name.endswith("num_batches_tracked") else CLOSE)
