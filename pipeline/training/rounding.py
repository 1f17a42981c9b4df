"""Rounding to a grid of zero point 0, with gradients: straight through, and to a scale that is learned.

Rule: values are those of torch.fake_quantize_*_affine, to the bit; on a CPU (torch 2.13) its kernels take ten times as
long as these plain passes over memory.
"""

from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

Codes = tuple[int, int]


def round_to_grid(x: Tensor, scale: Tensor, codes: Codes, *, axis: int | None = None) -> Tensor:
    """Return x rounded to scale * codes; the gradient passes where x falls on a code, and is cut elsewhere.

    Args:
        x: float32.
        scale: float32[], or float32[channels] along `axis`.
        codes: the lowest and the highest.
        axis: where channels have scales of their own; there nothing is cut, so scales must span what comes.
    """
    return cast(Tensor, _Rounded.apply(x, scale, codes, axis))  # type: ignore[no-untyped-call]


def round_and_learn(x: Tensor, scale: Tensor, codes: Codes, *, axis: int | None = None) -> Tensor:
    """Return x rounded to scale * codes, with a gradient to the scale as well (LSQ: Esser et al. 2020, equation 3).

    The gradient of a scale is divided by sqrt(values that share it x highest code), so that scales learn as fast as
    weights do (section 2.2; values are those of one image, or of one channel of weights).
    """
    return cast(Tensor, _Learned.apply(x, scale, codes, axis))  # type: ignore[no-untyped-call]


def in_memory_order(x: Tensor) -> Tensor:
    """Return x as a vector in the order of memory, so that reductions run at its speed (ten times, torch 2.13)."""
    return x.permute(_memory_order(x)).reshape(-1)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor, codes: Codes, axis: int | None) -> Tensor:
        grid = _broadcast(scale, x, axis)
        if axis is None:
            ctx.save_for_backward(x, scale)
        ctx.codes = codes  # type: ignore[attr-defined]
        return x.mul(1.0 / grid).round_().clamp_(*codes).mul_(grid)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.saved_tensors:  # type: ignore[attr-defined]
            return gradient, None, None, None
        x, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        return _inside(gradient, x, scale, ctx.codes), None, None, None  # type: ignore[attr-defined]


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor, codes: Codes, axis: int | None) -> Tensor:
        grid = _broadcast(scale, x, axis)
        rounded = x.mul(1.0 / grid).round_().clamp_(*codes).mul_(grid)
        ctx.save_for_backward(x, scale.detach().clone(), rounded)
        ctx.codes, ctx.axis = codes, axis  # type: ignore[attr-defined]
        return rounded

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Use that the slope by the scale is (rounded - x) / scale inside, and rounded / scale outside."""
        x, scale, rounded = ctx.saved_tensors  # type: ignore[attr-defined]
        codes, axis = ctx.codes, ctx.axis  # type: ignore[attr-defined]
        inside = _inside(gradient, x, _broadcast(scale, x, axis), codes)
        if axis is None:
            order = _memory_order(x)
            first, second, third, fourth = (v.permute(order).reshape(-1) for v in (gradient, rounded, inside, x))
            moment = torch.dot(first, second) - torch.dot(third, fourth)
            sharing = x[0].numel() if x.ndim else 1
        else:
            others = [place for place in range(x.ndim) if place != axis]
            moment = (gradient * rounded - inside * x).sum(others)
            sharing = x.numel() // x.shape[axis]
        return inside, moment / scale / (sharing * codes[1]) ** 0.5, None, None


def _inside(gradient: Tensor, x: Tensor, grid: Tensor, codes: Codes) -> Tensor:
    """Return the gradient where x rounds to one of the codes, else 0."""
    low, high = grid * (codes[0] - 0.5), grid * (codes[1] + 0.5)
    if grid.ndim == 0 and x.device.type == "cpu":  # one pass, but it wants numbers
        return cast(Tensor, torch.ops.aten.hardtanh_backward(gradient, x, float(low), float(high)))
    return gradient * ((x > low) & (x < high))


def _memory_order(x: Tensor) -> tuple[int, ...]:
    is_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return (0, 2, 3, 1) if is_last else tuple(range(x.ndim))


def _broadcast(scale: Tensor, x: Tensor, axis: int | None) -> Tensor:
    return scale if axis is None else scale.view([-1 if place == axis else 1 for place in range(x.ndim)])
