"""The one quantize formula: scales from ranges, codes from values and back. NumPy, Python 3.8.

A real value r has the code q = clip(round(r / scale) + zero_point, lowest, highest), rounding half to even, as ONNX's
QuantizeLinear defines it; r is about (q - zero_point) * scale.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

CODES = {"uint8": (0, 255), "int8": (-128, 127), "int32": (-(2**31), 2**31 - 1)}
"""Lowest and highest code of each element type."""
SMALLEST_SCALE = 2.0**-40
"""A tensor that is always zero still gets a scale that float32 can divide by."""


def scale_of_range(low: float, high: float, *, nonnegative: bool) -> float:
    """Return the scale, at zero point 0, with which the range [low, high] fits the codes 0..255 or -127..127.

    Raises:
        ValueError: the range is not finite, is upside down, or reaches below zero though `nonnegative`.
    """
    _require_range(low, high)
    if nonnegative and low < 0:
        raise ValueError("expected a range that is never negative; got [{}, {}]".format(low, high))
    largest = high / 255 if nonnegative else max(abs(low), abs(high)) / 127
    return max(largest, SMALLEST_SCALE)


def grid_of_range(low: float, high: float) -> Tuple[float, int]:
    """Return scale and zero point with which [low, high], widened to hold zero, fits the codes 0..255.

    The zero point is a code, so that zero is exact (Jacob et al. 2018, arXiv 1712.05877, section 3); rounding it shifts
    the range by half a step at most.

    Raises:
        ValueError: the range is not finite, or is upside down.
    """
    _require_range(low, high)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high / 255 - low / 255, SMALLEST_SCALE)
    return scale, int(np.rint(-low / scale))


def scale_of_channels(weights: np.ndarray, axis: int, bits: int = 8) -> np.ndarray:
    """Return float32[channels]: of each slice of `weights` along `axis`, the largest size / (2^(bits-1) - 1)."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others) / (2 ** (bits - 1) - 1)
    result: np.ndarray = np.maximum(largest, SMALLEST_SCALE).astype(np.float32)
    return result


def quantize(values: np.ndarray, scale: np.ndarray, zero_point: int, dtype: str) -> np.ndarray:
    """Return the codes of `values`; `scale` must broadcast against them."""
    low, high = CODES[dtype]
    codes = np.rint(values.astype(np.float64) / scale) + zero_point
    result: np.ndarray = np.clip(codes, low, high).astype(dtype)
    return result


def dequantize(codes: np.ndarray, scale: np.ndarray, zero_point: int) -> np.ndarray:
    """Return float32 values of `codes`; `scale` must broadcast against them."""
    result: np.ndarray = ((codes.astype(np.float64) - zero_point) * scale).astype(np.float32)
    return result


def rewrite_grid(scale: float, zero_point: int, dtype_from: str, dtype_to: str) -> Tuple[float, int]:
    """Return scale and zero point of a grid re-written in another element type.

    int8 to uint8 keeps scale and codes (shifted by 128). uint8 to int8, which is always symmetric, widens the range to
    the size of its wider side: from zero point 0 the scale becomes 255/127 as large, one bit lost.
    """
    if dtype_from == dtype_to:
        return scale, zero_point
    if dtype_to == "uint8":
        return scale, zero_point + 128
    return scale * max(zero_point, 255 - zero_point) / 127, 0


def _require_range(low: float, high: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError("expected a finite range low <= high; got [{}, {}]".format(low, high))
