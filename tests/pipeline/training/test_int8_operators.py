"""int8 convolutions give the codes that exact integers give, computed here by torch in float64.

float64 holds sums of products of codes exactly. The kernel scales them in float32, which may turn a value within 1e-4
of a tie (values to some hundreds, at 2^-24 of their size an operation) to the other code; bfloat16 keeps 8 bits.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.training.int8_teacher import has_int8
from pipeline.training.kernels.int8_operators import convolution, pack_codes, quantize

pytestmark = pytest.mark.skipif(not has_int8(), reason="this machine has no int8 kernels (AVX-512 BF16, Linux, g++)")
NEAR_A_TIE = 1e-4
CHANNELS_LAST = torch.channels_last


class Case(NamedTuple):
    num: int
    num_in: int
    num_out: int
    height: int
    width: int
    side: int
    stride: int
    dtype: torch.dtype = torch.uint8
    other: torch.dtype | None = None


CASES = {
    "3 x 3": Case(3, 16, 32, 9, 8, 3, 1),
    "3 x 3, other codes": Case(2, 48, 16, 7, 5, 3, 1, other=torch.uint8),
    "3 x 3, other values": Case(2, 32, 48, 6, 7, 3, 1, other=torch.bfloat16),
    "3 x 3, values": Case(2, 16, 160, 8, 9, 3, 1, torch.bfloat16),
    "3 x 3, values of other codes": Case(2, 160, 16, 5, 6, 3, 1, torch.bfloat16, torch.uint8),
    "3 x 3, values of other values": Case(2, 16, 32, 5, 5, 3, 1, torch.bfloat16, torch.bfloat16),
    "3 x 3, stride": Case(3, 16, 16, 9, 11, 3, 2, other=torch.uint8),
    "3 x 3, stride, even sides": Case(2, 32, 64, 8, 6, 3, 2, torch.bfloat16),
    "1 x 1": Case(2, 48, 32, 7, 9, 1, 1, other=torch.bfloat16),
    "1 x 1, stride": Case(3, 16, 80, 9, 8, 1, 2, torch.bfloat16, torch.uint8),
    "one pixel": Case(1, 16, 16, 1, 1, 3, 1),
    "large image": Case(1, 16, 32, 200, 200, 3, 1, other=torch.uint8),
    "large image, stride": Case(1, 32, 16, 201, 200, 3, 2),
    "large image, 1 x 1": Case(1, 16, 16, 200, 203, 1, 2, torch.bfloat16, torch.bfloat16),
}


def codes(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8).contiguous(memory_format=CHANNELS_LAST)


def drawn_other(case: Case, shape: torch.Size) -> Tensor | None:
    if case.other is None:
        return None
    if case.other == torch.uint8:
        return codes(*shape)
    return (40 * torch.randn(shape)).bfloat16().contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_convolution_is_that_of_exact_integers(case: Case) -> None:
    torch.manual_seed(0)
    x = codes(case.num, case.num_in, case.height, case.width)
    weight = torch.randint(-127, 128, (case.num_out, case.num_in, case.side, case.side), dtype=torch.int8)
    sums = F.conv2d(x.double(), weight.double(), None, case.stride, case.side // 2)
    scale = torch.rand(case.num_out).add(0.5) * float(80 / sums.std())
    bias, other = 30 * torch.randn(case.num_out), drawn_other(case, sums.shape)
    expected = sums * scale.double().view(-1, 1, 1) + bias.double().view(-1, 1, 1)
    if other is not None:
        expected += other.double() * 0.375
    expected = expected.relu()

    geometry = {"side": case.side, "stride": case.stride}
    y = convolution(x, pack_codes(weight), scale, bias, **geometry, dtype=case.dtype, other=other, other_scale=0.375)

    assert y.is_contiguous(memory_format=CHANNELS_LAST)
    if case.dtype == torch.uint8:
        assert_codes_of(y, expected)
    else:
        assert ((y.double() - expected).abs() <= 2**-8 * expected + NEAR_A_TIE).all()


def assert_codes_of(y: Tensor, values: Tensor) -> None:
    error = (y.double() - values.round().clamp(0, 255)).abs()
    from_tie = (values - values.floor() - 0.5).abs()
    assert y.dtype == torch.uint8
    assert y.shape == values.shape
    assert error.max() <= 1
    assert (from_tie[error > 0] < NEAR_A_TIE).all()


def test_ties_go_to_the_even_code_and_what_is_too_large_to_the_last() -> None:
    """One 1 x 1 kernel, scale a half: the code c becomes c / 2 + bias, which float32 holds exactly."""
    x = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 16, 1, 1)
    weight = F.one_hot(torch.arange(16)).to(torch.int8).view(16, 16, 1, 1)
    bias = torch.arange(16.0) * 13 - 20  # the last channels saturate, the first are cut at zero
    whole = x.contiguous(memory_format=CHANNELS_LAST)
    y = convolution(whole, pack_codes(weight), torch.full((16,), 0.5), bias, side=1, stride=1, dtype=torch.uint8)
    expected = (x.double() / 2 + bias.double().view(-1, 1, 1)).round().clamp(0, 255)
    assert torch.equal(y.double(), expected)
    assert (int(y.min()), int(y.max())) == (0, 255)


def test_quantize_rounds_ties_to_the_even_code_and_cuts_at_both_ends() -> None:
    values = torch.tensor([-3.0, -0.25, 0.0, 0.25, 0.75, 1.25, 1.26, 3.75, 127.25, 127.5, 128.0, 1e30, float("inf")])
    x = F.pad(values, (0, 3)).bfloat16().view(1, 16, 1, 1)
    expected = torch.tensor([0, 0, 0, 0, 2, 2, 3, 8, 254, 255, 255, 255, 255, 0, 0, 0], dtype=torch.uint8)
    assert torch.equal(quantize(x, 0.5).flatten(), expected)


def test_quantize_gives_the_codes_of_drawn_values() -> None:
    x = torch.randn(3, 16, 7, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    x = x.contiguous(memory_format=CHANNELS_LAST)
    assert_codes_of(quantize(x, 0.013), x.double().relu() / 0.013)
