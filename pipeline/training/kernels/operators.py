"""Convolution and BatchNorm with gradients, by the kernels of this folder: bfloat16, channels_last, on a CPU."""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_int64, c_void_p
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from pipeline.training.kernels.library import SWITCH, call

CHANNELS_LAST = torch.channels_last
LANES = 16
"""Channels that the kernels compute together."""


class Geometry(Structure):
    """As in tiles.h."""

    _fields_ = tuple(
        (name, c_int)
        for name in ("num_images", "height", "width", "channels_in", "channels_out", "side", "stride")
    )  # fmt: skip


class _NormLayer(Structure):
    """As in norm.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("gamma", "beta", "running_mean", "running_var", "num_batches")),
        *((name, c_void_p) for name in ("mean", "inverse_std")),
        *((name, c_float) for name in ("momentum", "eps")),
        ("with_relu", c_int),
    )


class _NormGradients(Structure):
    """As in norm.h."""

    _fields_ = (("gamma", c_void_p), ("beta", c_void_p))


class _BackwardArguments(Structure):
    """As in convolution.cpp."""

    _fields_ = tuple((name, c_void_p) for name in ("x", "w", "dx", "dx_more", "dw"))


_CONVOLUTION = (c_void_p, c_void_p, c_void_p, POINTER(Geometry))
_CONVOLUTION_BACKWARD = (c_void_p, POINTER(_BackwardArguments), POINTER(Geometry))
_NORM = (c_void_p, c_void_p, c_void_p, c_int64, c_int, POINTER(_NormLayer))
_NORM_BACKWARD = (*(c_void_p,) * 5, c_int64, c_int, POINTER(_NormLayer), POINTER(_NormGradients))
_BOTH = (*(c_void_p,) * 5, POINTER(Geometry), POINTER(_NormLayer))
_BOTH_BACKWARD = (
    *(c_void_p,) * 4, POINTER(_BackwardArguments), POINTER(Geometry), POINTER(_NormLayer), POINTER(_NormGradients),
)  # fmt: skip


class Norm(NamedTuple):
    """What a BatchNorm layer holds: float32[C], the variance unbiased, and a count int64[]; these are moved."""

    gamma: Tensor
    beta: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches: Tensor
    momentum: float
    eps: float


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.sizes = _geometry(x, weight, stride)
        y = _empty(x, weight, stride)
        call("convolution_forward", _CONVOLUTION, _at(x), _at(weight), _at(y), ctypes.byref(ctx.sizes))
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy, dx, dw = _laid_out(dy), _like(x, ctx.needs_input_grad[0]), _like(weight, ctx.needs_input_grad[1])
        given = _BackwardArguments(_at(x), _at(weight), _at(dx), None, _at(dw))
        call("convolution_backward", _CONVOLUTION_BACKWARD, _at(dy), ctypes.byref(given), ctypes.byref(ctx.sizes))
        return dx, dw, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, other: Tensor | None, gamma: Tensor, beta: Tensor, norm: Norm, with_relu: bool
    ) -> Tensor:
        y, statistics = torch.empty_like(x), _Statistics(norm, with_relu)
        ctx.sizes = (x.numel() // x.shape[1], x.shape[1])
        call("batch_norm_forward", _NORM, _at(x), _at(other), _at(y), *ctx.sizes, statistics.layer)
        ctx.save_for_backward(x, y if with_relu and other is not None else None, gamma, beta)
        ctx.statistics, ctx.has_other = statistics, other is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, gamma, beta = ctx.saved_tensors
        dy, dx, d_gamma, d_beta = _laid_out(dy), torch.empty_like(x), torch.empty_like(gamma), torch.empty_like(beta)
        d_other = _like(x, ctx.has_other and ctx.statistics.with_relu)
        gradients = _NormGradients(_at(d_gamma), _at(d_beta))
        tensors = (_at(dy), _at(y), _at(x), _at(dx), _at(d_other))
        layer = ctx.statistics.layer
        call("batch_norm_backward", _NORM_BACKWARD, *tensors, *ctx.sizes, layer, ctypes.byref(gradients))
        return dx, dy if ctx.has_other and d_other is None else d_other, d_gamma, d_beta, None, None


class _ConvolutionNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        other: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        norm: Norm,
        stride: int,
        with_relu: bool,
    ) -> tuple[Tensor, Tensor]:
        sizes, z, y = _geometry(x, weight, stride), _empty(x, weight, stride), _empty(x, weight, stride)
        statistics = _Statistics(norm, with_relu)
        tensors = (_at(x), _at(weight), _at(other), _at(z), _at(y))
        call("convolution_norm_forward", _BOTH, *tensors, ctypes.byref(sizes), statistics.layer)
        ctx.save_for_backward(x, weight, z, y if with_relu and other is not None else None, gamma, beta)
        ctx.sizes, ctx.statistics, ctx.has_other = sizes, statistics, other is not None
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dx_more: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return dx_more, *(None,) * 7
        x, weight, z, y, gamma, beta = ctx.saved_tensors
        dy, more = _laid_out(dy), None if dx_more is None else _laid_out(dx_more)
        dx, dw = _like(x, ctx.needs_input_grad[0]), _like(weight, ctx.needs_input_grad[1])
        d_gamma, d_beta = torch.empty_like(gamma), torch.empty_like(beta)
        d_other = _like(z, ctx.has_other and ctx.statistics.with_relu)
        given = _BackwardArguments(_at(x), _at(weight), _at(dx), _at(more), _at(dw))
        gradients = _NormGradients(_at(d_gamma), _at(d_beta))
        structures = (ctypes.byref(given), ctypes.byref(ctx.sizes), ctx.statistics.layer, ctypes.byref(gradients))
        call("convolution_norm_backward", _BOTH_BACKWARD, _at(dy), _at(y), _at(z), _at(d_other), *structures)
        d_added = dy if ctx.has_other and d_other is None else d_other
        return dx, dw, d_added, d_gamma, d_beta, None, None, None


class _Statistics:
    """A BatchNorm layer and the statistics of one batch, which its backward pass needs again."""

    def __init__(self, norm: Norm, with_relu: bool) -> None:
        self.with_relu = with_relu
        self._kept = (norm, torch.empty((2, len(norm.gamma))))  # what the structure points to
        tensors = (norm.gamma, norm.beta, norm.running_mean, norm.running_var, norm.num_batches, *self._kept[1])
        self.layer = ctypes.byref(_NormLayer(*map(_at, tensors), norm.momentum, norm.eps, with_relu))


def convolution(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the convolution of x with zeros around it: bfloat16[N, K, ceil(H / stride), ceil(W / stride)].

    Args:
        x: bfloat16[N, C, H, W], channels_last; C a multiple of 16, or any number where x needs no gradient.
        weight: float32[K, C, side, side], channels_last, K a multiple of 16, side 1 or 3; rounded to bfloat16.
        stride: of both axes.
    """
    return cast(Tensor, _Convolution.apply(x, weight, stride))  # type: ignore[no-untyped-call]


def batch_norm(x: Tensor, norm: Norm, *, other: Tensor | None = None, with_relu: bool = False) -> Tensor:
    """Return relu(BatchNorm(x) + other) by the batch's statistics, in x's shape.

    Args:
        x: bfloat16[N, C, H, W], channels_last, C a multiple of 16, more than one value a channel.
        norm: the layer.
        other: added before the ReLU; as x.
        with_relu: whether there is a ReLU.
    """
    arguments = (x, other, norm.gamma, norm.beta, norm, with_relu)
    return cast(Tensor, _BatchNorm.apply(*arguments))  # type: ignore[no-untyped-call]


def convolution_norm(
    x: Tensor, weight: Tensor, norm: Norm, stride: int, *, other: Tensor | None = None, with_relu: bool = False
) -> tuple[Tensor, Tensor]:
    """Return relu(BatchNorm(convolution(x)) + other), and x itself for whoever reads it next.

    The gradient of what reads the second is added to that of x where it is computed, at no cost of its own.
    Arguments as of `convolution` and `batch_norm`, `other` in the shape of the result.
    """
    arguments = (x, weight, other, norm.gamma, norm.beta, norm, stride, with_relu)
    return cast(tuple[Tensor, Tensor], _ConvolutionNorm.apply(*arguments))  # type: ignore[no-untyped-call]


def _geometry(x: Tensor, weight: Tensor, stride: int) -> Geometry:
    return Geometry(x.shape[0], x.shape[2], x.shape[3], weight.shape[1], weight.shape[0], weight.shape[2], stride)


def _empty(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return room for a convolution's output: zeros around, side // 2."""
    height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
    shape = (len(x), len(weight), height, width)
    return torch.empty(shape, dtype=torch.bfloat16, memory_format=CHANNELS_LAST)


def _like(tensor: Tensor, is_wanted: bool) -> Tensor | None:
    return torch.empty_like(tensor) if is_wanted else None


def _laid_out(gradient: Tensor) -> Tensor:
    """Return a gradient as the kernels read it.

    Raises:
        RuntimeError: gradients of gradients are wanted.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"expected first gradients alone; got create_graph=True. Set {SWITCH}=off for others")
    return gradient.contiguous(memory_format=CHANNELS_LAST)


def _at(tensor: Tensor | None) -> int | None:
    """Return where a tensor's values lie; None is a null pointer."""
    return None if tensor is None else tensor.data_ptr()
