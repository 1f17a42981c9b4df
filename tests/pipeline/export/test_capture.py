"""What cannot be captured is refused with the place in the user's file, and with ways out."""

import inspect

import pytest
import torch
from small_networks import IMAGE
from torch import Tensor, nn

from pipeline.errors import RecipeError
from pipeline.export.capture import capture


class ReadsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(IMAGE[0], 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if float(x.mean()) > 0.5:
            x = x * 2
        return x.flatten(1)


def test_a_forward_that_cannot_be_captured_is_refused_with_its_line() -> None:
    lines, start = inspect.getsourcelines(ReadsValues)
    line = start + next(index for index, text in enumerate(lines) if "0.5" in text)
    with pytest.raises(RecipeError) as refusal:
        capture(ReadsValues().eval(), torch.zeros(1, *IMAGE), 18, is_dynamic=False)
    message = str(refusal.value)
    assert f"{__file__}:{line}" in message
    assert "torch.where" in message
    assert "edgeproof quantize MODEL.onnx" in message
    assert "\n" not in message
