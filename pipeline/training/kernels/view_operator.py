"""Batches of views of small images, by the kernel of this folder, on a CPU."""

import ctypes
from ctypes import POINTER, Structure, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.training.kernels.library import call


class _Views(Structure):
    """As in views.cpp."""

    _fields_ = (
        ("images", c_void_p),
        *((name, c_int64) for name in ("padded_height", "padded_width", "channels", "height", "width")),
        ("table", c_void_p),
    )


_TYPES = (POINTER(_Views), *(c_void_p,) * 4, c_int64, c_void_p)


class Crops(NamedTuple):
    """Of each image of a batch: which it is, where its crop begins (int64[B]), and whether it is mirrored (bool[B])."""

    images: Tensor
    rows: Tensor
    columns: Tensor
    mirrored: Tensor


def show_views(padded: Tensor, table: Tensor, size: tuple[int, int], crops: Crops) -> Tensor:
    """Return the crops float32[B, C, H, W], channels_last.

    Args:
        padded: uint8[N, H', W', C], contiguous.
        table: float32[256, C], contiguous: what a byte of a channel stands for.
        size: H and W.
        crops: inside the images; every tensor contiguous.
    """
    _, height, width, channels = padded.shape
    out = torch.empty((len(crops.images), channels, *size), memory_format=torch.channels_last)
    views = _Views(padded.data_ptr(), height, width, channels, *size, table.data_ptr())
    places = (crops.images.data_ptr(), crops.rows.data_ptr(), crops.columns.data_ptr(), crops.mirrored.data_ptr())
    call("show_views", _TYPES, ctypes.byref(views), *places, len(crops.images), out.data_ptr())
    return out
