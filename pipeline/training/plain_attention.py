"""torch's attention, opened: nn.MultiheadAttention as layers and products that can be traced and quantized.

Rule: it computes what the original does in eval mode; what it cannot (keys beside the sequence) stays whole, in float.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainAttention(nn.Module):
    """What nn.MultiheadAttention computes at inference, in plain operators; dropout is left out."""

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.head_width = original.num_heads, original.head_dim
        self.batch_first = original.batch_first
        packed = cast(Tensor | None, original.in_proj_weight)
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        weights = [getattr(original, name) for name in names] if packed is None else list(packed.chunk(3))
        bias = cast(Tensor | None, original.in_proj_bias)
        biases = [None] * 3 if bias is None else list(bias.chunk(3))
        self.q_proj, self.k_proj, self.v_proj = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.out_proj = _linear(original.out_proj.weight, original.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return float[N, T, E] (float[T, N, E] unless batch_first), and the weights where they are wanted."""
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        num, tokens, width = query.shape
        keys = self._split(self.k_proj(key)).transpose(-2, -1)
        scores = torch.matmul(self._split(self.q_proj(query)), keys) * self.head_width**-0.5
        if attn_mask is not None:
            scores = _masked(scores, attn_mask)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask.unsqueeze(1).unsqueeze(1))
        weights = F.softmax(scores, dim=-1)
        attended = torch.matmul(weights, self._split(self.v_proj(value)))
        result = self.out_proj(attended.transpose(1, 2).reshape(num, tokens, width))
        if not self.batch_first:
            result = result.transpose(0, 1)
        if not need_weights:
            return result, None
        return result, weights.mean(dim=1) if average_attn_weights else weights

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)


def unpack_attention(network: nn.Module) -> nn.Module:
    """Replace each nn.MultiheadAttention that the network's own code calls, in place; return the network."""
    for path, module in list(network.named_modules()):
        if type(module) is not nn.MultiheadAttention or module.bias_k is not None or module.add_zero_attn:
            continue
        parent, _, name = path.rpartition(".")
        if path and not type(network.get_submodule(parent)).__module__.startswith("torch.nn"):
            setattr(network.get_submodule(parent), name, PlainAttention(module))
    return network


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype)
    layer.weight.data.copy_(weight.data)
    if bias is not None:
        layer.bias.data.copy_(bias.data)
    return layer


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
