"""Values and gradients of the training kernels are those of torch's operators in float64, up to what bfloat16 rounds.

Bounds: bfloat16 keeps 8 bits, so what is rounded to it strays by 2^-9 of itself, and a ReLU or a sum behind an operator
adds nothing. A sum in float32 strays by a few times 2^-24 of the sum of its terms' magnitudes; 2^-19 leaves room for
the longest ones.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.training.kernels.library import find_library
from pipeline.training.kernels.operators import Norm, batch_norm, convolution, convolution_norm

BF16, FLOAT32_SUM = 2**-8, 2**-19
CHANNELS_LAST = torch.channels_last

LIBRARY = find_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="this machine has no training kernels (no compiler, or Linux)")
needs_convolutions = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.convolutions, reason="convolutions need a processor with AVX-512 BF16, without AMX"
)
Sizes = tuple[int, int, int, int, int, int, int]
CONVOLUTIONS: tuple[Sizes, ...] = (  # images, channels in and out, height, width, side, stride
    (5, 16, 48, 9, 8, 3, 1),
    (5, 16, 32, 33, 31, 3, 2),
    (3, 32, 16, 8, 10, 3, 2),
    (1, 48, 160, 7, 5, 3, 1),
    (3, 160, 160, 6, 6, 3, 1),
    (2, 160, 16, 5, 6, 3, 2),
    (4, 16, 32, 8, 8, 1, 1),
    (4, 48, 16, 7, 9, 1, 2),
    (3, 16, 160, 6, 7, 1, 2),
    (1, 16, 16, 1, 1, 3, 1),
    (2, 16, 16, 1, 1, 3, 2),
    (2, 48, 16, 1, 1, 1, 2),
    (2, 48, 16, 5, 1, 3, 1),
    (3, 16, 16, 1, 6, 3, 2),
    (4, 1, 16, 28, 27, 3, 2),
    (5, 3, 16, 16, 16, 3, 1),
    (2, 7, 48, 11, 13, 3, 1),
    (3, 3, 32, 9, 9, 1, 1),
    (2, 7, 16, 6, 5, 1, 2),
    (2, 16, 16, 200, 200, 3, 1),  # from here on several bands an image
    (1, 48, 32, 201, 200, 3, 2),
    (2, 16, 32, 200, 201, 1, 2),
    (1, 3, 16, 201, 203, 3, 2),
)


@pytest.fixture(params=[1, 2], ids="{} threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def image(*sizes: int, shift: float = 0.0) -> Tensor:
    """Return drawn bfloat16[N, C, H, W] as the kernels take it."""
    return (torch.randn(*sizes) + shift).bfloat16().contiguous(memory_format=CHANNELS_LAST)


def exact(value: Tensor) -> Tensor:
    """Return a leaf of the same values in float64."""
    return value.detach().double().requires_grad_(value.requires_grad)


def assert_near(ours: Tensor | None, theirs: Tensor | None, *, rounding: float, absolute: Tensor | float) -> None:
    assert ours is not None
    assert theirs is not None
    assert ours.shape == theirs.shape
    error = (ours.double() - theirs).abs()
    bound = rounding * theirs.abs() + absolute
    assert (error <= bound).all(), f"off by {(error / bound).nan_to_num(nan=float('inf')).max():.3g} times the bound"


def plain_norm(*running: Tensor) -> Norm:
    """Return a norm of 16 channels with these statistics, or new ones."""
    statistics = running or (torch.zeros(16), torch.ones(16))
    return Norm(torch.ones(16), torch.zeros(16), *statistics, torch.tensor(0), 0.1, 1e-5)


def gradients(*values: Tensor) -> list[Tensor | None]:
    return [value.grad for value in values]


@needs_convolutions
@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids="{}".format)
def test_a_convolution_and_its_gradients_are_those_of_torch(sizes: Sizes, threads: int) -> None:
    num, num_in, num_out, height, width, side, stride = sizes
    torch.manual_seed(0)
    x = image(num, num_in, height, width).requires_grad_(num_in % 16 == 0)
    weight = torch.randn(num_out, num_in, side, side).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    y = convolution(x, weight, stride)
    assert (y.dtype, y.is_contiguous(memory_format=CHANNELS_LAST)) == (torch.bfloat16, True)
    dy = torch.randn(y.shape).bfloat16()
    y.backward(dy)

    def plain(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        y = F.conv2d(x, weight, None, stride, side // 2)
        y.backward(dy)
        return y.detach(), x.grad, weight.grad

    rounded = weight.detach().bfloat16().requires_grad_()
    theirs = plain(exact(x), exact(rounded), dy.double())
    magnitudes = plain(*(exact(value.detach().abs().requires_grad_(value.requires_grad)) for value in (x, rounded, dy)))
    for ours, value, magnitude in zip((y, x.grad, weight.grad), theirs, magnitudes, strict=True):
        assert (ours is None) == (value is None)
        if ours is not None and magnitude is not None:
            rounding = BF16 if ours.dtype == torch.bfloat16 else 0.0
            assert_near(ours.detach(), value, rounding=rounding, absolute=FLOAT32_SUM * magnitude)


@needs_convolutions
def test_a_convolution_says_where_an_image_is_not_finite() -> None:
    x = image(1, 16, 8, 8)
    x[0, 3, 4, 4] = float("nan")
    y = convolution(x, torch.ones(16, 16, 3, 3).contiguous(memory_format=CHANNELS_LAST), 1)
    touched = torch.zeros(8, 8, dtype=torch.bool)
    touched[3:6, 3:6] = True
    assert torch.equal(y.isnan(), touched.expand(1, 16, 8, 8))


@needs_convolutions
def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    x, weight = image(2, 16, 4, 4), torch.randn(16, 16, 1, 1)
    assert not convolution(x, weight, 1).requires_grad
    convolution(x.requires_grad_(), weight, 1).sum().backward()  # a gradient that is one number under many names
    assert weight.grad is None
    ones = torch.ones(2, 16, 4, 4, dtype=torch.float64)
    expected = torch.einsum("nkhw,kc->nchw", ones, weight.bfloat16().double()[:, :, 0, 0])
    assert_near(x.grad, expected, rounding=BF16, absolute=1e-4)


NORMS = {  # images, channels, height, width, with other, with relu, mean in standard deviations
    "alone": (2, 64, 3, 3, False, False, 0.0),
    "relu": (32, 16, 17, 16, False, True, 0.0),
    "sum": (4, 48, 9, 9, True, False, 0.0),
    "sum and relu": (7, 32, 5, 3, True, True, 0.0),
    "two values": (1, 16, 1, 2, False, True, 0.0),
    "far from zero": (5, 80, 6, 7, False, False, 50.0),
    "far from zero, sum and relu": (33, 160, 6, 7, True, True, -50.0),
}


@pytest.mark.parametrize("case", NORMS.values(), ids=NORMS)
def test_a_batch_norm_and_its_gradients_are_those_of_torch(
    case: tuple[int, int, int, int, bool, bool, float], threads: int
) -> None:
    *shape, has_other, with_relu, shift = case
    channels = shape[1]
    torch.manual_seed(0)
    x = image(*shape, shift=shift).requires_grad_()
    other = image(*shape).requires_grad_() if has_other else None
    gamma, beta = torch.rand(channels).add(0.5).requires_grad_(), torch.randn(channels).requires_grad_()
    running, count = (torch.randn(channels), torch.rand(channels)), torch.tensor(4)
    x_, other_, gamma_, beta_ = (exact(value) if value is not None else None for value in (x, other, gamma, beta))
    running_ = tuple(value.double() for value in running)
    y = batch_norm(x, Norm(gamma, beta, *running, count, 0.3, 1e-3), other=other, with_relu=with_relu)
    dy = torch.randn(shape).bfloat16()
    y.backward(dy)
    y_ = F.batch_norm(x_, *running_, gamma_, beta_, training=True, momentum=0.3, eps=1e-3)
    y_ = y_ + other_ if other_ is not None else y_
    if with_relu:  # where values are zero but for rounding, the ReLU of either may let them through
        y_ = y_ * (y > 0)
    y_.backward(dy.double())

    far = 2**-20 * (1 + abs(shift))  # normalized values are differences of numbers so large, in float32
    assert_near(y.detach(), y_.detach(), rounding=BF16, absolute=8 * far)
    assert_near(x.grad, x_.grad, rounding=BF16, absolute=8 * far * x_.grad.abs().max())
    assert (gamma.grad - gamma_.grad).norm() <= far * 16 * gamma_.grad.norm()
    assert (beta.grad - beta_.grad).norm() <= 1e-6 * beta_.grad.norm()
    assert count == 5
    for ours, theirs in zip(running, running_, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    if other is not None and other_ is not None:
        assert torch.equal(other.grad.double(), other_.grad)  # the gradient itself, or zero: nothing to round


BOTH = {  # sizes as above, with other, with relu, whether the input is read again
    "relu": ((4, 16, 32, 9, 9, 3, 1), False, True, False),
    "relu, read again": ((4, 32, 16, 8, 7, 3, 1), False, True, True),
    "sum and relu, read again": ((5, 16, 16, 8, 8, 3, 1), True, True, True),
    "stride, sum and relu": ((3, 48, 160, 9, 7, 3, 2), True, True, False),
    "one pixel, stride, read again": ((6, 16, 32, 9, 9, 1, 2), False, False, True),
    "sum": ((2, 160, 48, 5, 5, 1, 1), True, False, False),
    "first layer": ((8, 3, 16, 12, 11, 3, 1), False, True, False),
    "several bands": ((1, 16, 16, 200, 200, 3, 1), True, True, True),
}


@needs_convolutions
@pytest.mark.parametrize("case", BOTH.values(), ids=BOTH)
def test_a_convolution_with_its_norm_is_that_of_torch(case: tuple[Sizes, bool, bool, bool], threads: int) -> None:
    """Between the two a value is rounded to bfloat16, which then goes through all sums: so norms are compared."""
    (num, num_in, num_out, height, width, side, stride), has_other, with_relu, read_again = case
    torch.manual_seed(0)
    x = image(num, num_in, height, width).requires_grad_(num_in % 16 == 0)
    weight = torch.randn(num_out, num_in, side, side).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    gamma, beta = torch.rand(num_out).add(0.5).requires_grad_(), torch.randn(num_out).requires_grad_()
    running, count = (torch.randn(num_out), torch.rand(num_out)), torch.tensor(4)
    running_ = tuple(value.double() for value in running)
    z_shape = F.conv2d(x.detach().float(), weight.detach(), None, stride, side // 2).shape
    other = image(*z_shape).requires_grad_() if has_other else None
    dy, dx = torch.randn(z_shape).bfloat16(), torch.randn(x.shape).bfloat16()
    x_, weight_, gamma_, beta_ = exact(x), exact(weight), exact(gamma), exact(beta)

    norm = Norm(gamma, beta, *running, count, 0.3, 1e-3)
    y, passed = convolution_norm(x, weight, norm, stride, other=other, with_relu=with_relu)
    assert torch.equal(passed, x)
    assert count == 5
    ((y * dy).sum() + ((passed * dx).sum() if read_again else 0)).backward()

    z_ = F.conv2d(x_, weight_ + (weight.detach().bfloat16() - weight_.detach()), None, stride, side // 2)
    y_ = F.batch_norm(z_, *running_, gamma_, beta_, training=True, momentum=0.3, eps=1e-3)
    other_ = exact(other) if other is not None else None
    y_ = y_ + other_ if other_ is not None else y_
    if with_relu:
        y_ = y_ * (y > 0)
    ((y_ * dy).sum() + ((x_ * dx).sum() if read_again else 0)).backward()

    pairs = [(y, y_), (x.grad, x_.grad), (weight.grad, weight_.grad), (gamma.grad, gamma_.grad)]
    pairs += [(beta.grad, beta_.grad), *zip(running, running_, strict=True)]
    pairs += [(other.grad, other_.grad)] if other is not None and other_ is not None else []
    for ours, theirs in pairs:
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours - theirs).norm() <= 2**-7 * theirs.norm()


@needs_convolutions
def test_where_only_the_input_is_read_again_the_layer_gets_no_gradient() -> None:
    x, weight = image(2, 16, 4, 4).requires_grad_(), torch.randn(16, 16, 1, 1).requires_grad_()
    _, passed = convolution_norm(x, weight, plain_norm(), 1)
    passed.backward(x.detach())
    assert weight.grad is None
    assert torch.equal(x.grad, x.detach())


@needs_convolutions
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_batch_is_normalized_by_itself_whatever_an_earlier_one_left_behind(value: float) -> None:
    x, weight = image(2, 16, 4, 4), torch.randn(16, 16, 1, 1)
    spoilt = torch.zeros(16).index_fill(0, torch.tensor([3]), value)
    y, _ = convolution_norm(x, weight, plain_norm(spoilt, torch.ones(16)), 1)
    assert torch.equal(y, convolution_norm(x, weight, plain_norm(torch.zeros(16), torch.ones(16)), 1)[0])


def test_gradients_of_gradients_of_a_norm_are_refused_with_the_switch_to_set() -> None:
    x = image(2, 16, 4, 4).requires_grad_()
    assert_refuses_second_gradients(batch_norm(x, plain_norm()), x)


@needs_convolutions
def test_gradients_of_gradients_of_a_convolution_are_refused_with_the_switch_to_set() -> None:
    x, weight = image(2, 16, 4, 4).requires_grad_(), torch.randn(16, 16, 1, 1).requires_grad_()
    assert_refuses_second_gradients(convolution(x, weight, 1), x)
    assert_refuses_second_gradients(convolution_norm(x, weight, plain_norm(), 1)[0], x)


def assert_refuses_second_gradients(y: Tensor, x: Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"got create_graph=True\. Set EDGEPROOF_KERNELS=off"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("has_other", [False, True], ids=["alone", "with other"])
@pytest.mark.parametrize("place", [0, 5], ids=["first pixel", "another pixel"])
def test_what_is_not_finite_is_never_hidden_by_the_relu(value: float, has_other: bool, place: int) -> None:
    x = image(2, 16, 3, 3)
    x[0, 7, place // 3, place % 3] = value
    running = (torch.zeros(16), torch.ones(16))
    other = image(2, 16, 3, 3) if has_other else None
    y = batch_norm(x, plain_norm(*running), other=other, with_relu=True)
    spoilt = torch.arange(16) == 7
    assert torch.equal(y.isnan().all(3).all(2).all(0), spoilt)
    assert torch.equal(y.isnan().any(3).any(2).any(0), spoilt)
    for statistic in running:
        assert torch.equal(~statistic.isfinite(), spoilt)


def test_what_is_not_finite_in_the_other_reaches_the_output() -> None:
    x, other = image(2, 16, 3, 3), image(2, 16, 3, 3)
    other[1, 2, 0, 1] = float("nan")
    other[0, 3, 0, 1] = float("inf")
    running = (torch.zeros(16), torch.ones(16))
    y = batch_norm(x, plain_norm(*running), other=other, with_relu=True)
    assert torch.equal(y.isnan(), other.isnan())
    assert torch.equal(y.isinf(), other.isinf())


def test_a_gradient_is_the_same_whether_the_relu_is_read_from_the_output_or_from_the_input() -> None:
    """Without another tensor only x is kept for the gradient; with one of zeros the output is."""

    def trained(other: Tensor | None) -> list[Tensor | None]:
        torch.manual_seed(0)
        x, dy = image(16, 48, 16, 16).requires_grad_(), torch.randn(16, 48, 16, 16).bfloat16()
        gamma, beta = torch.randn(48).requires_grad_(), torch.randn(48).requires_grad_()
        running = (torch.zeros(48), torch.ones(48))
        y = batch_norm(x, Norm(gamma, beta, *running, torch.tensor(0), 0.1, 1e-5), other=other, with_relu=True)
        y.backward(dy)
        return [y.detach(), *gradients(x, gamma, beta)]

    kept = trained(torch.zeros(16, 48, 16, 16).bfloat16().contiguous(memory_format=CHANNELS_LAST))
    assert all(torch.equal(a, b) for a, b in zip(trained(None), kept, strict=True))


@needs_convolutions
def test_the_same_step_gives_the_same_bits(threads: int) -> None:
    def step() -> list[Tensor | None]:
        torch.manual_seed(0)
        x = image(9, 16, 15, 15).requires_grad_()
        weight = torch.randn(32, 16, 3, 3).contiguous(memory_format=CHANNELS_LAST).requires_grad_()
        gamma, beta, running = torch.rand(32).requires_grad_(), torch.randn(32), (torch.zeros(32), torch.ones(32))
        norm = Norm(gamma, beta, *running, torch.tensor(0), 0.1, 1e-5)
        z, passed = convolution_norm(x, weight, norm, 1, with_relu=True)
        y = batch_norm(z + convolution(passed, weight, 1), norm)
        y.square().mean().backward()
        return [y.detach(), *running, *gradients(x, weight, gamma)]

    first = step()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, step(), strict=True))
