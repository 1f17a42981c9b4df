"""Fake quantization: modules that round to a target's grid in training, with straight-through gradients.

Rule: they branch on plain Python flags only, so that they export; ranges and grids live in buffers, so that they are
checkpointed. Under autocast they compute in float32.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from calibration.affine import SMALLEST_SCALE

EMA = 0.99
"""Weight of the old range in the moving average of an observing step."""


class FakeQuantizeActivation(nn.Module):
    """Rounds a tensor to one per-tensor grid with zero point 0: codes 0..255 (or 0..127), or -128..127 if negative.

    `observing` widens the range to all that passes (calibration); `moving` follows it as a moving average (training).
    """

    low: Tensor
    high: Tensor
    scale: Tensor
    zero_point: Tensor
    is_nonnegative: Tensor

    def __init__(self, nonnegative_codes: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(float("-inf")))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("is_nonnegative", torch.tensor(False))
        self.nonnegative_codes = nonnegative_codes
        self.observing = False
        self.moving = False
        self.quantizing = False
        self.codes = (-128, 127)

    def forward(self, x: Tensor, is_moved: bool = False) -> Tensor:
        """Return x on the grid, float32; x itself while only observing. What is only moved was seen before."""
        if not is_moved and (self.observing or (self.moving and self.training)):
            self._observe(x.detach())
        if not self.quantizing:
            return x
        return torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, *self.codes)

    def settle(self) -> None:
        """Fix signedness and scale by the range seen, and quantize from now on."""
        self.is_nonnegative.fill_(bool(self.low >= 0))
        self._set_scale()
        self.restore()

    def restore(self) -> None:
        """Take the plain flags from the buffers, after a checkpoint was loaded."""
        has_uint8 = self.nonnegative_codes == 255  # else codes 0..127 of int8: what is never negative has no others
        self.codes = (0, 255) if has_uint8 and bool(self.is_nonnegative) else (-128, 127)
        self.observing, self.quantizing = False, True

    def _observe(self, x: Tensor) -> None:
        low, high = (value.float() for value in torch.aminmax(x))
        if self.observing:
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
        else:
            self.low.lerp_(low, 1 - EMA)
            self.high.lerp_(high, 1 - EMA)
            self._set_scale()

    def _set_scale(self) -> None:
        largest = torch.maximum(self.low.abs(), self.high.abs())
        steps = self.nonnegative_codes if bool(self.is_nonnegative) else 127
        self.scale.copy_((largest / steps).clamp_min(SMALLEST_SCALE))


class FakeQuantizeWeight(nn.Module):
    """Rounds weights to a symmetric grid per output channel; a parametrization of a layer's `weight`.

    The scale is the largest size of the channel / (2^(bits-1) - 1). It follows the weights until the grid is restored
    from a checkpoint.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, weight: Tensor, axis: int, bits: int) -> None:
        super().__init__()
        self.axis = axis
        self.largest_code = 2 ** (bits - 1) - 1
        self.following = True
        self.register_buffer("scale", self._scale(weight))
        self.register_buffer("zero_point", torch.zeros(weight.shape[axis], dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight on its grid."""
        if self.following:
            self.scale.copy_(self._scale(weight))
        if self.largest_code < 127:
            weight = self._clamped(weight)
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero_point, self.axis, -128, 127)

    @torch.no_grad()
    def _scale(self, weight: Tensor) -> Tensor:
        others = [i for i in range(weight.ndim) if i != self.axis]
        largest: Tensor = weight.detach().float().abs().amax(others)
        result: Tensor = (largest / self.largest_code).clamp_min(SMALLEST_SCALE)
        return result

    def _clamped(self, weight: Tensor) -> Tensor:
        shape = [-1 if i == self.axis else 1 for i in range(weight.ndim)]
        limit = (self.scale * self.largest_code).view(shape)
        return torch.maximum(torch.minimum(weight, limit), -limit)


def quantize_weight(layer: nn.Module, bits: int) -> None:
    """Make a layer compute with its weight on the grid."""
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    grid = FakeQuantizeWeight(cast(Tensor, layer.weight), axis, bits)
    parametrize.register_parametrization(layer, "weight", grid)


def activation_quantizers(model: nn.Module) -> dict[str, FakeQuantizeActivation]:
    """Return the activation quantizers of a model by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, FakeQuantizeActivation)}


def restore_grids(model: nn.Module) -> None:
    """Compute with the grids of a loaded checkpoint from now on."""
    for module in model.modules():
        if isinstance(module, FakeQuantizeActivation):
            module.restore()
        elif isinstance(module, FakeQuantizeWeight):
            module.following = False
