"""Searches for the size at which a histogram is best cut before it is put on an int8 grid. NumPy, Python 3.8."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from calibration.affine import grid_of_range
from calibration.histogram import Histogram

COARSE = 2.0 ** (-np.arange(0, 81) / 8)
"""Sizes tried first, as shares of the largest: 8 an octave, down to a thousandth."""
COARSE_OF_SIDES, FINE_OF_SIDES = 2.0 ** (-np.arange(0, 25) / 4), 2.0 ** (-np.arange(-8, 9) / 32)
"""The same for each side of an asymmetric grid: 4 an octave, down to a 64th; then 32 an octave around the best."""
NUM_FINE = 65
"""Sizes tried between the neighbours of the best of them."""
LEAST_COUNT = 1e-4
"""What stands for a count of zero where the reference has values, so that a cut through a gap costs, but is possible.

As the smoothing of MXNet's and ONNX Runtime's calibrators, which took over TensorRT's search.
"""
ROWS = 256
"""Sizes judged at once."""


def find_least_squared_error(histogram: Histogram, num_codes: int) -> float:
    """Return the size c that minimises E[(x - Q(x))^2], for Q(x) = s min(round(x / s), num_codes), s = c / num_codes.

    The sum of what rounding and what cutting costs (Banner et al. 2019, arXiv 1810.05723, equation 2, there
    approximated; here integrated exactly, values taken as evenly spread within a bin). `num_codes` counts those above
    zero. Zeros cost nothing on any grid.
    """
    largest = histogram.extremes.largest

    def cost(size: float) -> float:
        return expected_squared_error(histogram, size / num_codes, num_codes)

    best = min(COARSE * largest, key=cost)
    factor = COARSE[1]
    fine = np.linspace(best * factor, min(best / factor, largest), NUM_FINE)
    return float(min(np.append(fine, best), key=cost))


def find_least_squared_error_of_sides(below: Histogram, above: Histogram) -> Tuple[float, float]:
    """Return the sizes (l, h) that minimise E[(x - Q(x))^2] on the asymmetric grid of [-l, h], codes 0..255.

    `below` counted max(-x, 0), `above` max(x, 0). One size is searched after the other, coarsely and then finely.
    """

    def cost(low: float, high: float) -> float:
        step, center = grid_of_range(-low, high)
        return expected_squared_error(below, step, center) + expected_squared_error(above, step, 255 - center)

    low, high = below.extremes.largest, above.extremes.largest
    shares = COARSE_OF_SIDES
    for _ in range(2):
        lows, highs = shares * low, shares * high
        high = float(min(highs[highs <= above.extremes.largest], key=lambda size: cost(low, size)))
        low = float(min(lows[lows <= below.extremes.largest], key=lambda size: cost(size, high)))
        shares = FINE_OF_SIDES
    return low, high


def expected_squared_error(histogram: Histogram, step: float, num_codes: int) -> float:
    """Return the mean of (x - Q(x))^2 over all values counted, for Q(x) = step min(round(x / step), num_codes)."""
    edges = np.arange(histogram.num_used + 1) * histogram.width
    cost = np.diff(_integral_of_squared_error(edges, step, num_codes)) / histogram.width
    return float((cost * histogram.counts[: histogram.num_used]).sum() / histogram.extremes.count)


def find_least_divergence(histogram: Histogram, num_codes: int) -> float:
    """Return the size whose grid keeps most information: the search of TensorRT (Migacz 2017, GTC, slides 28 to 33).

    For every bin i from the number of levels on, the reference P is the histogram up to i with all that is larger
    counted in its last bin; the candidate Q is the same without the larger values, folded to the levels and spread
    evenly over the bins of each level that are not empty. The i with the least KL(P || Q) wins; of equals the largest.
    The levels are 0 and `num_codes` above it. Zeros, which every grid holds, are left out.
    """
    counts = histogram.counts[: histogram.num_used]
    num_levels = num_codes + 1
    if len(counts) <= num_levels or not counts.any():
        return histogram.extremes.largest
    ends = np.arange(num_levels, len(counts) + 1)
    divergences = np.concatenate(
        [_divergences(counts, ends[start : start + ROWS], num_levels) for start in range(0, len(ends), ROWS)]
    )
    best = len(ends) - 1 - int(np.argmin(divergences[::-1]))
    return min(float(ends[best]) * histogram.width, histogram.extremes.largest)


def _integral_of_squared_error(x: np.ndarray, step: float, num_codes: int) -> np.ndarray:
    """Return the integral from 0 to x of (t - Q(t))^2 dt: each whole step costs step^3 / 12, the rest d^3 / 3."""
    code = np.minimum(np.rint(x / step), num_codes)
    rest = x - code * step
    result: np.ndarray = code * (step**3 / 12) + rest * rest * rest / 3
    return result


def _divergences(counts: np.ndarray, ends: np.ndarray, num_levels: int) -> np.ndarray:
    """Return KL(P || Q) in nats for each of `ends`, from running sums: a level costs the same however wide it is.

    With counts c, levels g of n_g bins that are not empty and sums S_g, KL is sum c log c - sum S_g log(S_g / n_g)
    over the whole, but for the last bin, where P has more than Q.
    """
    before = _running(counts)
    before_log = _running(counts * np.log(np.maximum(counts, 1)))
    before_filled = _running(counts > 0)
    edges = ends[:, None] * np.arange(num_levels + 1) // num_levels
    sums, filled = np.diff(before[edges], axis=1), np.diff(before_filled[edges], axis=1)
    means = sums / np.maximum(filled, 1)
    inside = before[ends]
    of_levels = (sums * np.log(np.maximum(means, 1))).sum(axis=1)
    last, outside = counts[ends - 1], before[-1] - inside
    last_mean = np.where(last > 0, means[:, -1], LEAST_COUNT)
    with_larger = last + outside
    change = _information(with_larger, last_mean) - _information(last, last_mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = (before_log[ends] - of_levels + change) / before[-1] + np.log(inside / before[-1])
    return np.where(inside > 0, result, np.inf)


def _information(counts: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return counts x log(counts / candidate), 0 where nothing was counted."""
    result: np.ndarray = counts * np.log(np.maximum(counts, 1) / candidate)
    return result


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
