"""Small networks, each with one construct that placement, folding or export has to get right.

All take images float32[N, 4, 8, 8] and give logits[N, 5]. BatchNorm statistics are drawn, so that folding matters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = (4, 8, 8)
CLASSES = 5


def make_images(num: int, seed: int = 0) -> Tensor:
    return torch.randn(num, *IMAGE, generator=torch.Generator().manual_seed(seed))


def make_network(kind: type[nn.Module]) -> nn.Module:
    """Return a network in eval mode with drawn weights and statistics."""
    torch.manual_seed(0)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def conv(channels_in: int, channels: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layer = nn.Conv2d(channels_in, channels, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels), *([nn.ReLU()] if act else []))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.main, self.skip = conv(4, 8), conv(8, 8, act=False), conv(8, 8, act=False)
        self.relu, self.pool, self.linear = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.main(x) + x)
        x = self.relu(self.main[0](x) + self.skip(x))
        return self.linear(torch.flatten(self.pool(x), 1))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = conv(4, 4), conv(4, 4, act=False), nn.Conv2d(8, CLASSES, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.pool(self.last(torch.cat([self.left(x), self.right(x)], dim=1))), 1)


class MaxPoolFlatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.MaxPool2d(2), conv(4, 8, act=False), nn.MaxPool2d(2), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Identity(), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SharedTwice(nn.Module):
    """One convolution and one norm, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu(self.norm(self.conv(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ReluReadTwice(nn.Module):
    """The output of a convolution is read both before and after its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.linear = nn.Conv2d(4, 8, 3, 1, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.last(F.relu(x)) + x
        return self.linear(x.mean((2, 3)))


class LinearOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(256, 16, bias=False), nn.BatchNorm1d(16)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.first(x.view(x.size(0), -1)))))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.depthwise(self.expand(x))) + F.max_pool2d(x, 2)
        return self.linear(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.linear = nn.Conv2d(4, 8, 3, 2), nn.LeakyReLU(0.1), nn.Linear(8 * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        n, c, h, w = x.shape
        return self.linear(F.dropout(x.reshape(n, c * h * w), 0.5, self.training))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(4, 8, stride=2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.norm, self.last = nn.BatchNorm2d(6), nn.Conv2d(6, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.up(self.down(x))))).mean((2, 3))


class Shuffle(nn.Module):
    """Channels split in two, one half convolved, joined again; a number and a parameter are added on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.linear = conv(4, 8), conv(4, 4), nn.Linear(8, CLASSES)
        self.offset = nn.Parameter(torch.linspace(-1, 1, 8).view(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = self.stem(x).chunk(2, dim=1)
        x = torch.cat([kept + 1.0, self.branch(worked)], dim=1) + self.offset
        return self.linear(torch.flatten(F.avg_pool2d(x, 8), 1))


class PreActivation(nn.Module):
    """A norm and a ReLU before the convolution: the norm stays."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, 2, 1)
        self.second, self.linear = nn.BatchNorm2d(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.relu(self.norm(x)))
        return self.linear(torch.sigmoid(self.second(x) * 2).mean((2, 3)))


NETWORKS: tuple[type[nn.Module], ...] = (
    Residual,
    Concat,
    MaxPoolFlatten,
    SharedTwice,
    ReluReadTwice,
    LinearOnly,
    Depthwise,
    Leaky,
    Transposed,
    Shuffle,
    PreActivation,
)
