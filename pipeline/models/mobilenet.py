"""MobileNets for small images: V2 (Sandler et al. 2018, arXiv 1801.04381), V3 (Howard et al. 2019, arXiv 1905.02244).

The default tables are the papers', with strides for images of 32 x 32 pixels; for 224 x 224 give the papers' own.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.parts import RecipePart


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Return the multiple of `divisor` next to `channels`, but never less than 90 % of it (the papers' own rule)."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


class InvertedResiduals(RecipePart):
    """A row of table 2 of MobileNetV2: blocks that expand, convolve each channel on its own, and project."""

    expansion: int = Field(ge=1)
    """Channels inside a block, as a multiple of those that enter it."""
    channels: int = Field(ge=1)
    """Channels that leave it, before the width multiplier."""
    repeats: int = Field(default=1, ge=1)
    """How many blocks."""
    stride: Literal[1, 2] = 1
    """Of the first of them."""


def _v2_rows() -> tuple[InvertedResiduals, ...]:
    rows = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    return tuple(InvertedResiduals(expansion=t, channels=c, repeats=n, stride=s) for t, c, n, s in rows)  # type: ignore[arg-type]


class MobileNetV2(RecipePart):
    """Depthwise convolutions, ReLU6 and linear bottlenecks: all of it runs in int8 on every runtime."""

    kind: Literal["mobilenet_v2"] = "mobilenet_v2"
    width: float = Field(default=1.0, gt=0)
    """Multiplies the channels of every layer."""
    stem_channels: int = Field(default=32, ge=1)
    """Channels of the first convolution, before the width multiplier."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution: 1 for images of 32 pixels, 2 for 224."""
    blocks: tuple[InvertedResiduals, ...] = Field(default_factory=_v2_rows, min_length=1)
    """Rows of blocks; the paper's, where the second has stride 1 instead of 2."""
    last_channels: int = Field(default=1280, ge=1)
    """Channels before the classifier; the width multiplier only widens it."""

    def build(self, channels: int, num_classes: int) -> nn.Module:
        """Return the untrained network: float[N, channels, H, W] to logits[N, num_classes]."""
        return _MobileNetV2(self, channels, num_classes)


class Bottleneck(RecipePart):
    """A row of table 1 or 2 of MobileNetV3: one block."""

    kernel: Literal[3, 5] = 3
    """Side of the depthwise kernel."""
    expanded: int = Field(ge=1)
    """Channels inside, before the width multiplier."""
    channels: int = Field(ge=1)
    """Channels that leave it, before the width multiplier."""
    squeeze_excite: bool = False
    """Scale each channel by what the whole image says."""
    activation: Literal["relu", "hardswish"] = "hardswish"
    """The non-linearity inside."""
    stride: Literal[1, 2] = 1
    """Of the depthwise convolution."""


def _v3_rows() -> tuple[Bottleneck, ...]:
    """Return MobileNetV3-Small (table 2); the paper's first two strides are 2."""
    rows = (
        (3, 16, 16, True, "relu", 1),
        (3, 72, 24, False, "relu", 1),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
        (5, 120, 48, True, "hardswish", 1),
        (5, 144, 48, True, "hardswish", 1),
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    )
    names = ("kernel", "expanded", "channels", "squeeze_excite", "activation", "stride")
    return tuple(Bottleneck.model_validate(dict(zip(names, row, strict=True))) for row in rows)


class MobileNetV3(RecipePart):
    """Hardswish and squeeze-and-excite: accurate for its size, but float in places on some runtimes."""

    kind: Literal["mobilenet_v3"] = "mobilenet_v3"
    width: float = Field(default=1.0, gt=0)
    """Multiplies the channels of every layer."""
    stem_channels: int = Field(default=16, ge=1)
    """Channels of the first convolution, before the width multiplier."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution: 1 for images of 32 pixels, 2 for 224."""
    blocks: tuple[Bottleneck, ...] = Field(default_factory=_v3_rows, min_length=1)
    """One row a block; MobileNetV3-Small, with fewer strides."""
    last_channels: int = Field(default=1024, ge=1)
    """Channels of the layer before the classifier."""

    def build(self, channels: int, num_classes: int) -> nn.Module:
        """Return the untrained network: float[N, channels, H, W] to logits[N, num_classes]."""
        return _MobileNetV3(self, channels, num_classes)


def _convolution(
    channels_in: int, channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), *([] if act is None else [act]))


class _InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; the input is added where shapes agree."""

    def __init__(self, channels_in: int, expanded: int, channels: int, stride: int) -> None:
        super().__init__()
        expand = [_convolution(channels_in, expanded, act=nn.ReLU6())] if expanded != channels_in else []
        depthwise = _convolution(expanded, expanded, 3, stride=stride, groups=expanded, act=nn.ReLU6())
        self.conv = nn.Sequential(*expand, depthwise, _convolution(expanded, channels))
        self.is_residual = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.is_residual else y


class _MobileNetV2(nn.Module):
    """`features.0` is the stem, then one module a block, then the last convolution, as in torchvision."""

    def __init__(self, model: MobileNetV2, channels: int, num_classes: int) -> None:
        super().__init__()
        width = make_divisible(model.stem_channels * model.width)
        layers: list[nn.Module] = [_convolution(channels, width, 3, stride=model.stem_stride, act=nn.ReLU6())]
        strides = [model.stem_stride]
        for row in model.blocks:
            for repeat in range(row.repeats):
                out, stride = make_divisible(row.channels * model.width), row.stride if repeat == 0 else 1
                layers.append(_InvertedResidual(width, width * row.expansion, out, stride))
                strides.append(stride)
                width = out
        last = make_divisible(model.last_channels * max(1.0, model.width))
        layers.append(_convolution(width, last, act=nn.ReLU6()))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        self.stages = _last_before_strides(strides)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


class _SqueezeExcite(nn.Module):
    """Scale channels by hardsigmoid(fc2(relu(fc1(mean of the image)))) (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.scale_activation(self.fc2(self.relu(self.fc1(self.avgpool(x)))))
        return scale * x


class _Bottleneck(nn.Module):
    def __init__(self, channels_in: int, row: Bottleneck, width: float) -> None:
        super().__init__()
        expanded, channels = make_divisible(row.expanded * width), make_divisible(row.channels * width)
        act = nn.Hardswish if row.activation == "hardswish" else nn.ReLU
        expand = [_convolution(channels_in, expanded, act=act())] if expanded != channels_in else []
        depthwise = _convolution(expanded, expanded, row.kernel, stride=row.stride, groups=expanded, act=act())
        squeeze = [_SqueezeExcite(expanded, make_divisible(expanded // 4))] if row.squeeze_excite else []
        self.block = nn.Sequential(*expand, depthwise, *squeeze, _convolution(expanded, channels))
        self.is_residual = row.stride == 1 and channels_in == channels
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.is_residual else y


class _MobileNetV3(nn.Module):
    """`features.0` is the stem, then one module a block, then the last convolution, as in torchvision."""

    def __init__(self, model: MobileNetV3, channels: int, num_classes: int) -> None:
        super().__init__()
        width = make_divisible(model.stem_channels * model.width)
        layers: list[nn.Module] = [_convolution(channels, width, 3, stride=model.stem_stride, act=nn.Hardswish())]
        for row in model.blocks:
            block = _Bottleneck(width, row, model.width)
            layers.append(block)
            width = block.channels
        layers.append(_convolution(width, 6 * width, act=nn.Hardswish()))
        last = make_divisible(model.last_channels * model.width)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * width, last), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(last, num_classes)
        )
        self.stages = _last_before_strides([model.stem_stride, *(row.stride for row in model.blocks)])
        _initialize(self)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eps, norm.momentum = 1e-3, 0.01  # the paper's, section 6.1.1

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


def _last_before_strides(strides: Sequence[int]) -> tuple[str, ...]:
    """Return the last layer of each image size: of the layers features.0, features.1, ... with these strides."""
    return tuple(
        f"features.{place}" for place in range(len(strides)) if place + 1 == len(strides) or strides[place + 1] > 1
    )


def _initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
