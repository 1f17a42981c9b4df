"""Calibration: the ranges of a quantized model's tensors, from images of the validation cut."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import DataError
from pipeline.parts import RecipePart
from pipeline.training.fake_quantize import FakeQuantizeActivation, activation_quantizers

CALIBRATION_BATCH = 64


class Calibration(RecipePart):
    """Which images the first ranges come from; training then moves them."""

    samples: int = Field(default=512, ge=1)
    """Images of the validation cut, from its start; the smallest and largest value of each tensor make its range."""


@torch.no_grad()
def calibrate(model: nn.Module, batch: Callable[[Tensor], Tensor], num_images: int, calibration: Calibration) -> None:
    """Set every activation grid of `model` by what passes through it, in float32, and quantize from then on.

    Args:
        model: from `make_quantized`.
        batch: images by index int64[B], plain views, normalized.
        num_images: how many there are.
        calibration: how many to use.

    Raises:
        DataError: a tensor is not finite, or none passed.
    """
    quantizers = activation_quantizers(model)
    for quantizer in quantizers.values():
        quantizer.observing, quantizer.quantizing = True, False
    model.eval()
    for index in torch.split(torch.arange(min(calibration.samples, num_images)), CALIBRATION_BATCH):
        model(batch(index))
    for name, quantizer in quantizers.items():
        _check_range(name, quantizer)
        quantizer.settle()


def _check_range(name: str, quantizer: FakeQuantizeActivation) -> None:
    low, high = float(quantizer.low), float(quantizer.high)
    if not (torch.isfinite(quantizer.low) and torch.isfinite(quantizer.high)):
        raise DataError(
            f"calibration: expected finite values at {name.removeprefix('quantize_')}; got [{low}, {high}]. "
            "Look at the student's weights and at task.normalization"
        )
