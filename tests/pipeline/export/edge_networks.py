"""Small networks of the kinds that edge devices run, in evaluation mode, with seeded weights and statistics."""

from functools import cache

import torch
from small_networks import CLASSES, IMAGE
from torch import Tensor, nn

from pipeline.models.resnet import ResNet


class Residual8(nn.Module):
    """The ResNet-8 of the product, narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ResNet(depth=8, width=4).build(IMAGE[0], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Inverted(nn.Module):
    """Two inverted residuals with ReLU6, as MobileNetV2's; the pooled tensor is reached by a mean without keepdim."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(IMAGE[0], 8, nn.ReLU6())
        self.blocks = nn.ModuleList([_expanded(8), _expanded(8)])
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.classifier(x.mean((-2, -1)))


class Squeezed(nn.Module):
    """Hardswish, and squeeze-excite with hardsigmoid, as MobileNetV3's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(IMAGE[0], 8, nn.Hardswish())
        self.pool, self.fewer, self.more = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.gate = nn.Hardsigmoid()
        self.last = _layer(8, 8, nn.Hardswish())
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.gate(self.more(torch.relu(self.fewer(self.pool(x)))))
        return self.classifier(self.last(x).mean((2, 3), keepdim=True).flatten(1))


class Attention(nn.Module):
    """Multi-head attention by matrix products and a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.project = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
        k = k.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
        v = v.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, dim=-1)
        return self.project((weights @ v).transpose(1, 2).reshape(batch, length, width))


class Transformer(nn.Module):
    """A vision transformer of one block: LayerNorm, attention, Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(IMAGE[0], 16, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, 16) * 0.1)
        self.norm1, self.attention = nn.LayerNorm(16), Attention(16, 2)
        self.norm2 = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.classifier(x.mean(1))


class Decoder(nn.Module):
    """What else changed between operator sets: an uneven chunk, padding, resizing, other reductions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(IMAGE[0], 8, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")
        self.last, self.act = nn.Conv2d(8, CLASSES, 1), nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.act(self.stem(x)).chunk(3, dim=1)
        x = torch.cat([third, second, first], dim=1)
        x = self.last(self.up(nn.functional.pad(x, (1, 0, 0, 1))))
        return x.amax((2, 3)) + x.norm(dim=(2, 3))


KINDS: tuple[type[nn.Module], ...] = (Residual8, Inverted, Squeezed, Transformer)


@cache
def build(kind: type[nn.Module]) -> nn.Module:
    """Return a network with statistics that are not the initial ones."""
    torch.manual_seed(3)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval().requires_grad_(False)


def _layer(channels_in: int, channels: int, act: nn.Module, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, 3, 1, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), act)


def _expanded(channels: int) -> nn.Sequential:
    wide = 2 * channels
    expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
    project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))
    return nn.Sequential(expand, _layer(wide, wide, nn.ReLU6(), groups=wide), project)
