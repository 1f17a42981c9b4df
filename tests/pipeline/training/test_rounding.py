"""Rounding with gradients, against torch's own kernels, and what learning a scale does."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.training.fake_quantize import FakeQuantizeActivation, fix_scales, learn_scales, quantize_weight
from pipeline.training.rounding import in_memory_order, round_and_learn, round_to_grid

CODES = [(0, 255), (-128, 127)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def drawn(layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Return values that reach far beyond the codes, and a gradient in the other layout."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(4, 8, 6, 5, generator=generator)
    return x.contiguous(memory_format=layout).requires_grad_(), torch.randn(x.shape, generator=generator)


def backward(x: Tensor, rounded: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    rounded.backward(gradient)
    assert x.grad is not None
    found, x.grad = x.grad, None
    return rounded.detach(), found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("codes", CODES, ids=str)
def test_rounding_is_torchs_to_the_bit(codes: tuple[int, int], layout: torch.memory_format) -> None:
    (x, gradient), scale = drawn(layout), torch.tensor(0.011)
    zero_point = torch.tensor(0, dtype=torch.int32)
    reference = backward(x, torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *codes), gradient)
    ours = backward(x, round_to_grid(x, scale, codes), gradient)
    assert all(torch.equal(a, b) for a, b in zip(ours, reference, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("codes", CODES, ids=str)
def test_a_learned_scale_has_torchs_gradient(codes: tuple[int, int], layout: torch.memory_format) -> None:
    (x, gradient), factor = drawn(layout), 1 / (8 * 6 * 5 * codes[1]) ** 0.5  # one image has 8 x 6 x 5 values
    scale, other = torch.tensor([0.011], requires_grad=True), torch.tensor(0.011, requires_grad=True)
    learnable = torch._fake_quantize_learnable_per_tensor_affine(x, scale, torch.zeros(1), *codes, factor)
    reference = backward(x, learnable, gradient)
    ours = backward(x, round_and_learn(x, other, codes), gradient)
    assert all(torch.equal(a, b) for a, b in zip(ours, reference, strict=True))
    assert other.grad is not None
    assert scale.grad is not None
    assert other.grad.item() == pytest.approx(scale.grad.item(), rel=1e-4)  # sums in another order


def test_learned_scales_of_channels_have_torchs_gradient() -> None:
    torch.manual_seed(0)
    weight, gradient = torch.randn(6, 4, 3, 3, requires_grad=True), torch.randn(6, 4, 3, 3)
    scale = (weight.detach().abs().amax((1, 2, 3)) / 20).requires_grad_()  # a third of the values are cut
    other = scale.detach().clone().requires_grad_()
    learnable = torch._fake_quantize_learnable_per_channel_affine(
        weight, scale, torch.zeros(6), 0, -7, 7, 1 / (36 * 7) ** 0.5
    )
    reference = backward(weight, learnable, gradient)
    ours = backward(weight, round_and_learn(weight, other, (-7, 7), axis=0), gradient)
    assert all(torch.equal(a, b) for a, b in zip(ours, reference, strict=True))
    torch.testing.assert_close(other.grad, scale.grad)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_memory_order_keeps_every_value_and_copies_none(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
    flat = in_memory_order(x)
    assert flat.data_ptr() == x.data_ptr()
    assert torch.equal(flat.sort().values, x.flatten().sort().values)


def settled(values: Tensor, ceiling: float | None = None) -> FakeQuantizeActivation:
    quantizer = FakeQuantizeActivation(255, ceiling)
    quantizer.settle(float(values.min()), float(values.max()))
    return quantizer


def test_a_learned_scale_ends_where_rounding_and_cutting_balance() -> None:
    """For values uniform in [0, 1] and the codes 0..3 the expected gradient of the squared error is zero at s = 3/11.

    Inside (x < 3.5 s) it is the squared error / s, 3.5 s^2 / 12 in all; outside 3 (3 s - x), in all
    -1.5 ((1 - 3 s)^2 - (s / 2)^2).
    """
    torch.manual_seed(0)
    x = torch.rand(4096)
    quantizer = settled(x)
    quantizer.codes = (0, 3)
    quantizer.scale.fill_(0.1)
    quantizer.train().learn()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        (quantizer(x) - x).square().mean().backward()
        optimizer.step()
    assert quantizer.scale.item() == pytest.approx(3 / 11, rel=0.02)


@pytest.mark.parametrize("pushed_to", [-3.0, 0.0, 9.0])
def test_a_learned_scale_stays_positive_and_below_the_ceiling(pushed_to: float) -> None:
    quantizer = settled(torch.tensor([0.0, 6.0]), ceiling=6.0)
    quantizer.train().learn()
    quantizer.scale.data.fill_(pushed_to)
    assert torch.isfinite(quantizer(torch.tensor([0.0, 3.0]))).all()
    assert 6 / 255 / 16 <= quantizer.scale.item() <= 6 / 255 * (1 + 1e-6)


def test_learned_scales_are_trained_and_end_as_buffers_of_the_same_names() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(settled(torch.rand(99)), nn.Linear(5, 3))
    quantize_weight(layer[1], 4)
    before = set(layer.state_dict())
    learn_scales(layer)
    learned = [name for name, _ in layer.named_parameters() if name.endswith("scale")]
    layer(torch.rand(7, 5)).square().sum().backward()
    assert learned == ["0.scale", "1.parametrizations.weight.0.scale"]
    assert all(layer.get_parameter(name).grad.abs().sum() > 0 for name in learned)
    fix_scales(layer)
    assert set(layer.state_dict()) == before
    assert not [name for name, _ in layer.named_parameters() if name.endswith("scale")]
