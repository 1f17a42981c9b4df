"""Convolution, sum and ReLU on int8 codes for inference, by the kernels of this folder, on a CPU."""

import ctypes
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from pipeline.training.kernels.library import call
from pipeline.training.kernels.operators import CHANNELS_LAST, LANES, Geometry

GROUP = 4
"""Input channels that one instruction multiplies and adds up."""
KINDS = {None: 0, torch.uint8: 1, torch.bfloat16: 2}


class _Layer(ctypes.Structure):
    """As in int8_convolution.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("weights", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("other", c_void_p),
        ("other_kind", c_int),
        ("other_scale", c_float),
        ("y", c_void_p),
        ("kind", c_int),
    )


def pack_codes(weight: Tensor) -> Tensor:
    """Return weights int8[K, C, side, side] in the order of the kernel: int8[K / 16, side^2, C / 4, 16, 4]."""
    num_out, num_in, side, _ = weight.shape
    parts = weight.permute(0, 2, 3, 1).reshape(num_out // LANES, LANES, side * side, num_in // GROUP, GROUP)
    return parts.permute(0, 2, 3, 1, 4).contiguous()


def quantize(x: Tensor, scale: float) -> Tensor:
    """Return the codes uint8 of bfloat16 values in the layout of x, whose size is a multiple of 16; zero point 0."""
    codes = torch.empty_like(x, dtype=torch.uint8)
    types = (c_void_p, c_void_p, c_int64, c_float)
    call("quantize_uint8", types, x.data_ptr(), codes.data_ptr(), x.numel(), scale)
    return codes


def convolution(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    side: int,
    stride: int,
    dtype: torch.dtype,
    other: Tensor | None = None,
    other_scale: float = 1.0,
) -> Tensor:
    """Return relu(sums * scale + bias + other * other_scale), [N, K, ceil(H / stride), ceil(W / stride)].

    Args:
        x: codes uint8[N, C, H, W], channels_last, zero point 0; C a multiple of 16.
        packed: as `pack_codes` gives them.
        scale: float32[K], of a sum of products of codes.
        bias: float32[K].
        side: of the kernel, 1 or 3, with zeros around.
        stride: of both axes.
        dtype: uint8 rounds the result, in units of its scale, to codes; bfloat16 keeps values.
        other: what is added, of the result's shape, channels_last: codes uint8 or values bfloat16.
        other_scale: of `other`, in units of the result.
    """
    num_out = len(scale)
    height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
    y = torch.empty((len(x), num_out, height, width), dtype=dtype, memory_format=CHANNELS_LAST)
    sizes = Geometry(len(x), x.shape[2], x.shape[3], x.shape[1], num_out, side, stride)
    other_kind = KINDS[None if other is None else other.dtype]
    layer = _Layer(
        *(tensor.data_ptr() for tensor in (x, packed, scale, bias)),
        None if other is None else other.data_ptr(),
        other_kind,
        other_scale,
        y.data_ptr(),
        KINDS[dtype],
    )
    types = (POINTER(_Layer), POINTER(Geometry))
    call("int8_convolution", types, ctypes.byref(layer), ctypes.byref(sizes))
    return y
