"""Fake quantization: modules that round to a target's grid in training, with straight-through gradients.

Rule: they branch on plain Python flags only, so that they export and never wait for a device; ranges and grids live in
buffers (scales that are learned in parameters of the same names), so that they are checkpointed. Under autocast they
compute in float32.
"""

from typing import Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from calibration.affine import SMALLEST_SCALE
from pipeline.training.rounding import in_memory_order, round_and_learn, round_to_grid

Scales = Literal["ema", "learned"]
"""Where the steps of activation grids come from in training: ranges that are followed, or the gradient."""
EMA = 0.99
"""Weight of the old range in the moving average of a step."""
LEAST_SHARE = 1 / 16
"""A learned scale stays above this share of the one that it started from: a scale of nothing never comes back."""


class FakeQuantizeActivation(nn.Module):
    """Rounds a tensor to one per-tensor grid with zero point 0: codes 0..255 (or 0..127), or -128..127 if negative.

    Calibration settles the range; `moving` lets it follow what passes in training, by a moving average, unless the
    scale is learned. `ceiling` is the largest value that can come, where the operator before has one.
    """

    low: Tensor
    high: Tensor
    scale: Tensor
    zero_point: Tensor
    is_nonnegative: Tensor
    least: Tensor

    def __init__(self, nonnegative_codes: int, ceiling: float | None = None) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(float("-inf")))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("is_nonnegative", torch.tensor(False))
        self.nonnegative_codes = nonnegative_codes
        self.ceiling = ceiling
        self.moving = False
        self.quantizing = False
        self.learning = False
        self.codes = (-128, 127)
        self._steps = 127

    def forward(self, x: Tensor, is_moved: bool = False) -> Tensor:
        """Return x on the grid, float32; x itself before calibration. What is only moved was seen before."""
        if not is_moved and self.moving and self.training and not self.learning:
            self._follow(x.detach())
        if not self.quantizing or (is_moved and self.training):  # codes that were only moved are on the grid
            return x
        if self.learning:
            self._keep_positive()
            return round_and_learn(x.float(), self.scale, self.codes)
        if self.training and x.device.type == "cpu":
            return round_to_grid(x.float(), self.scale, self.codes)
        return torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, *self.codes)

    def settle(self, low: float, high: float) -> None:
        """Fix signedness and scale by the range of what passes, and quantize from now on."""
        self.low.fill_(low)
        self.high.fill_(high)
        self.is_nonnegative.fill_(bool(self.low >= 0))
        self.restore()
        self._set_scale()

    def restore(self) -> None:
        """Take the plain flags from the buffers, after a checkpoint was loaded."""
        is_nonnegative = bool(self.is_nonnegative)
        has_uint8 = self.nonnegative_codes == 255  # else codes 0..127 of int8: what is never negative has no others
        self.codes = (0, 255) if has_uint8 and is_nonnegative else (-128, 127)
        self._steps = self.nonnegative_codes if is_nonnegative else 127
        self.quantizing = True

    def learn(self) -> None:
        """Make the scale a parameter, which starts where calibration left it."""
        _make_parameter(self)
        self.learning = True

    def fix(self) -> None:
        """Make the scale a buffer again, with the value that it has now."""
        _make_buffer(self)
        self.learning = False

    def _follow(self, x: Tensor) -> None:
        low, high = (value.float() for value in torch.aminmax(in_memory_order(x)))
        self.low.lerp_(low, 1 - EMA)
        self.high.lerp_(high, 1 - EMA)
        self._set_scale()

    def _set_scale(self) -> None:
        largest = torch.maximum(self.low.abs(), self.high.abs())
        self.scale.copy_((largest / self._steps).clamp_min(SMALLEST_SCALE))

    def _keep_positive(self) -> None:
        most = None if self.ceiling is None else self.ceiling / self._steps  # beyond, runtimes keep the clip apart
        self.scale.data = self.scale.data.clamp(self.least, None if most is None else self.least.new_tensor(most))


class FakeQuantizeWeight(nn.Module):
    """Rounds weights to a symmetric grid per output channel; a parametrization of a layer's `weight`.

    The scale is the largest size of the channel / (2^(bits-1) - 1). It follows the weights until it is learned, or the
    grid is restored from a checkpoint.
    """

    scale: Tensor
    zero_point: Tensor
    least: Tensor

    def __init__(self, weight: Tensor, axis: int, bits: int) -> None:
        super().__init__()
        self.axis = axis
        self.largest_code = 2 ** (bits - 1) - 1
        self.following = True
        self.learning = False
        self._is_within = False
        self.register_buffer("scale", self._scale(weight))
        self.register_buffer("zero_point", torch.zeros(weight.shape[axis], dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight on its grid."""
        codes = (-self.largest_code, self.largest_code)
        if self.learning:
            self.scale.data = torch.maximum(self.scale.data, self.least)
            return round_and_learn(weight.float(), self.scale, codes, axis=self.axis)
        if self.following:
            self.scale.copy_(self._scale(weight))
        if self.training and self.following:
            return round_to_grid(weight.float(), self.scale, codes, axis=self.axis)
        if not self.following and not self._is_within:
            weight = self._clamped(weight)
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero_point, self.axis, -128, 127)

    def restore(self, weight: Tensor) -> None:
        """Keep the scales from now on, and cut the weight where they end, in place: exports then need not to."""
        self.following, self._is_within = False, True
        weight.data = self._clamped(weight.data)

    def learn(self) -> None:
        """Make the scales a parameter, which starts where the weights are now."""
        _make_parameter(self)
        self.following, self.learning = False, True

    def fix(self) -> None:
        """Make the scales a buffer again, with the values that they have now."""
        _make_buffer(self)
        self.learning = False

    @torch.no_grad()
    def _scale(self, weight: Tensor) -> Tensor:
        others = [i for i in range(weight.ndim) if i != self.axis % weight.ndim]
        largest: Tensor = weight.detach().float().abs().amax(others)
        result: Tensor = (largest / self.largest_code).clamp_min(SMALLEST_SCALE)
        return result

    def _clamped(self, weight: Tensor) -> Tensor:
        shape = [-1 if i == self.axis else 1 for i in range(weight.ndim)]
        limit = (self.scale * self.largest_code).view(shape)
        return torch.maximum(torch.minimum(weight, limit), -limit)


def quantize_weight(layer: nn.Module, bits: int, grid: FakeQuantizeWeight | None = None) -> FakeQuantizeWeight:
    """Make a layer compute with its weight on the grid: on `grid`, where another layer shares the weight."""
    axis = 1 if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d) else 0
    grid = grid or FakeQuantizeWeight(cast(Tensor, layer.weight), axis, bits)
    parametrize.register_parametrization(layer, "weight", grid)
    return grid


def activation_quantizers(model: nn.Module) -> dict[str, FakeQuantizeActivation]:
    """Return the activation quantizers of a model by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, FakeQuantizeActivation)}


def restore_grids(model: nn.Module) -> None:
    """Compute with the grids of a loaded checkpoint from now on."""
    for module in model.modules():
        if isinstance(module, FakeQuantizeActivation):
            module.restore()
        elif isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], FakeQuantizeWeight):
            module[0].restore(module.original)
    if isinstance(model, fx.GraphModule):  # weights of functions
        for node in model.graph.find_nodes(op="get_attr"):
            for user in node.users:
                grid = model.get_submodule(str(user.target)) if user.op == "call_module" else None
                if isinstance(grid, FakeQuantizeWeight):
                    grid.restore(attribute(model, str(node.target)))


def attribute(model: nn.Module, path: str) -> Tensor:
    """Return the parameter or buffer of that path."""
    owner, _, name = path.rpartition(".")
    value = getattr(model.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value


def learn_scales(model: nn.Module) -> None:
    """Let a calibrated model learn its scales with its weights (Esser et al. 2020, arXiv 1902.08153)."""
    for module in model.modules():
        if isinstance(module, FakeQuantizeActivation | FakeQuantizeWeight):
            module.learn()


def fix_scales(model: nn.Module) -> None:
    """End what `learn_scales` began: scales are buffers again, as checkpoints have them."""
    for module in model.modules():
        if isinstance(module, FakeQuantizeActivation | FakeQuantizeWeight) and module.learning:
            module.fix()


def _make_parameter(module: FakeQuantizeActivation | FakeQuantizeWeight) -> None:
    start = module.scale.detach().clone()
    del module._buffers["scale"]
    module.scale = nn.Parameter(start)
    module.register_buffer("least", start * LEAST_SHARE, persistent=False)


def _make_buffer(module: FakeQuantizeActivation | FakeQuantizeWeight) -> None:
    learned = module.scale.detach().clone()
    del module._parameters["scale"], module._buffers["least"]
    module.register_buffer("scale", learned)
