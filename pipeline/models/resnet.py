"""The CIFAR residual networks of He et al. 2015 (arXiv 1512.03385, section 4.2): depth 6n+2, three stages."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.parts import RecipePart


class ResNet(RecipePart):
    """A residual network for small images: ResNet-8, -20, -32, -44, -56, -110."""

    kind: Literal["resnet"] = "resnet"
    depth: int = Field(default=8, ge=8)
    """Layers with weights: 6n + 2."""
    width: int = Field(default=16, ge=1)
    """Channels of the first stage; doubled in each of the two others."""
    shortcut: Literal["A", "B"] = "B"
    """Where shapes change: A subsamples and pads with zeros (no weights), B convolves 1x1 (what runtimes quantize)."""

    @model_validator(mode="after")
    def _depth_fits(self) -> "ResNet":
        if (self.depth - 2) % 6:
            raise ValueError(f"depth: expected 6n + 2 (8, 14, 20, 32, 44, 56, 110); got {self.depth}")
        return self

    def build(self, channels: int, num_classes: int) -> nn.Module:
        """Return the untrained network: float[N, channels, H, W] to logits[N, num_classes]."""
        return _ResNet(channels, num_classes, (self.depth - 2) // 6, self.width, self.shortcut)


class _Subsample(nn.Module):
    """Option A of the paper: every second pixel, new channels zero on both sides."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0, new_channels // 2, new_channels - new_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], self.padding)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            option_b = nn.Sequential(conv, nn.BatchNorm2d(channels))
            self.shortcut = option_b if shortcut == "B" else _Subsample(channels - channels_in)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu2(y + self.shortcut(x))
        return result


class _ResNet(nn.Module):
    """Names of parameters as in the widely used checkpoints: conv1, bn1, layer1.0.conv1, ..., linear."""

    def __init__(self, channels: int, num_classes: int, blocks: int, width: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(width, width, blocks, 1, shortcut)
        self.layer2 = _stage(width, 2 * width, blocks, 2, shortcut)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, num_classes)
        self.stages = tuple(f"layer{stage}.{blocks - 1}.relu2" for stage in (1, 2, 3))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def _stage(channels_in: int, channels: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    first = _Block(channels_in, channels, stride, shortcut)
    return nn.Sequential(first, *(_Block(channels, channels, 1, shortcut) for _ in range(blocks - 1)))
