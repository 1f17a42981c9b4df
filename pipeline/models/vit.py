"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929; pre-norm, GELU), of layers that quantize."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.parts import RecipePart


class VisionTransformer(RecipePart):
    """Attention over patches; a convolutional stem helps where images are few (Xiao et al. 2021, arXiv 2106.14881)."""

    kind: Literal["vit"] = "vit"
    image_size: int = Field(default=32, ge=8, le=1024)
    """Height and width of the images, in pixels: there is one learned position a patch, so no other size is taken."""
    patch_size: Literal[2, 4, 8, 16, 32] = 4
    """Height and width of a patch, in pixels."""
    stem: Literal["convolutions", "patches"] = "convolutions"
    """How an image becomes patches: 3x3 convolutions of stride 2, one a factor of two, or one convolution a patch."""
    width: int = Field(default=96, ge=8)
    """Numbers that describe a patch."""
    depth: int = Field(default=6, ge=1)
    """Blocks of attention and perceptron."""
    heads: int = Field(default=3, ge=1)
    """Attentions side by side; a divisor of the width."""
    mlp_ratio: float = Field(default=2.0, gt=0)
    """Numbers inside the perceptron, as a multiple of the width."""
    pooling: Literal["mean", "class_token"] = "mean"
    """What the classifier reads: the mean of the patches, or a learned token beside them."""

    @model_validator(mode="after")
    def _fits(self) -> "VisionTransformer":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size: expected a multiple of patch_size {self.patch_size}; got {self.image_size}")
        if self.width % self.heads:
            raise ValueError(f"width: expected a multiple of heads {self.heads}; got {self.width}")
        return self

    def build(self, channels: int, num_classes: int) -> nn.Module:
        """Return the untrained network: float[N, channels, image_size, image_size] to logits[N, num_classes]."""
        return _VisionTransformer(self, channels, num_classes)


class _Attention(nn.Module):
    """Scaled dot-product attention in plain operators, so that both of its products are quantized."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        num, tokens, width = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        keys = self._split(key, num, tokens).transpose(-2, -1)
        scores = torch.matmul(self._split(query, num, tokens), keys) * self.head_width**-0.5
        attended = torch.matmul(F.softmax(scores, dim=-1), self._split(value, num, tokens))
        result: Tensor = self.proj(attended.transpose(1, 2).reshape(num, tokens, width))
        return result

    def _split(self, x: Tensor, num: int, tokens: int) -> Tensor:
        return x.reshape(num, tokens, self.heads, self.head_width).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class _VisionTransformer(nn.Module):
    def __init__(self, model: VisionTransformer, channels: int, num_classes: int) -> None:
        super().__init__()
        width, has_token = model.width, model.pooling == "class_token"
        tokens = (model.image_size // model.patch_size) ** 2 + has_token
        self.stem = _stem(model, channels)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if has_token else None
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        self.blocks = nn.Sequential(
            *(_Block(width, model.heads, int(width * model.mlp_ratio)) for _ in range(model.depth))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self.stages = tuple(f"blocks.{place}" for place in range(model.depth))
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.positions))
        logits: Tensor = self.head(x.mean(dim=1) if self.class_token is None else x[:, 0])
        return logits


def _stem(model: VisionTransformer, channels: int) -> nn.Sequential:
    """Return what turns float[N, channels, H, W] into float[N, width, H / patch_size, W / patch_size]."""
    if model.stem == "patches":
        return nn.Sequential(nn.Conv2d(channels, model.width, model.patch_size, model.patch_size))
    layers: list[nn.Module] = []
    halvings = model.patch_size.bit_length() - 1
    for place in range(halvings):
        out = model.width // 2 ** (halvings - 1 - place)
        conv = nn.Conv2d(channels, out, 3, 2, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, model.width, 1))
