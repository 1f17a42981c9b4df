"""What makes a tensor hard to quantize: outliers, heavy tails, dead channels, constants. NumPy, Python 3.8.

Rule: facts of the whole stream of values in constant memory, the same whatever the batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List, Optional, Tuple

import numpy as np

from calibration.histogram import PART, Histogram

STATISTICS_BINS = 1 << 15
COMMON_SHARE = 0.9999
"""The share of the values to whose size the largest is compared."""


@dataclass(frozen=True)
class TensorFacts:
    """What calibration saw of one tensor, and what its range does to it."""

    name: str
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    covered: Tuple[float, float]
    """The range that its grid covers."""
    outlier_ratio: float
    """Largest size / 99.99th percentile of the sizes; infinite where that is zero, 1 of what is always zero."""
    kurtosis: float
    """Fourth central moment / variance^2: uniform 1.8, Gaussian 3, Laplace 6; 0 of a constant, which has none."""
    clipped_share: float
    """Share of the values that the range cuts."""
    zero_channels: Tuple[int, ...]
    """Channels that are zero in every sample."""
    num_channels: int

    @property
    def is_constant(self) -> bool:
        """Whether every value is the same."""
        return self.low == self.high


class TensorStatistics:
    """Gathers the facts of one tensor."""

    def __init__(self) -> None:
        self._histogram = Histogram(STATISTICS_BINS)
        self._moments = Moments()
        self._channel_sizes: Optional[np.ndarray] = None

    def observe(self, values: np.ndarray, channel_axis: int = 1) -> None:
        """Take in values; a tensor without that axis is one channel.

        Raises:
            ValueError: a value is not finite.
        """
        if not values.size:
            return
        self._histogram.add(values)
        self._moments.add(values)
        others = tuple(axis for axis in range(values.ndim) if axis != channel_axis)
        sizes = np.maximum(values.max(axis=others), -values.min(axis=others)).reshape(-1)
        seen = self._channel_sizes
        self._channel_sizes = sizes if seen is None else np.maximum(seen, sizes)

    def describe(self, name: str, covered: Tuple[float, float]) -> TensorFacts:
        """Return the facts of what was seen, and of the range that was chosen for it.

        Raises:
            ValueError: nothing was seen.
        """
        seen, sizes = self._histogram.extremes, self._channel_sizes
        if sizes is None:
            raise ValueError("{}: expected at least one value; got none".format(name))
        common = self._histogram.find_size(COMMON_SHARE)
        return TensorFacts(
            name=name,
            low=seen.low,
            high=seen.high,
            covered=covered,
            outlier_ratio=seen.largest / common if common else (float("inf") if seen.largest else 1.0),
            kurtosis=0.0 if seen.low == seen.high else self._moments.kurtosis,
            clipped_share=self._histogram.share_above(max(abs(covered[0]), abs(covered[1]))),
            zero_channels=tuple(int(channel) for channel in np.flatnonzero(sizes == 0)),
            num_channels=len(sizes),
        )


def sort_worst_first(facts: Iterable[TensorFacts]) -> List[TensorFacts]:
    """Return constants first, then the largest outliers; of equals the heaviest tails."""
    return sorted(facts, key=lambda tensor: (not tensor.is_constant, -tensor.outlier_ratio, -tensor.kurtosis))


class Moments:
    """Central moments of a stream, merged part by part (Pebay 2008, SAND2008-6212, equations 2.1 and 3.1)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._sums = (0.0, 0.0, 0.0)
        """Of the second, third and fourth power of the distance from the mean."""

    def add(self, values: np.ndarray) -> None:
        """Take in values of any shape."""
        flat = values.ravel(order="K")
        for start in range(0, flat.size, PART):
            part = flat[start : start + PART].astype(np.float64)
            mean = float(part.mean())
            part -= mean
            square = part * part
            self._merge(len(part), mean, (square.sum(), np.dot(square, part), np.dot(square, square)))

    @property
    def kurtosis(self) -> float:
        """Fourth central moment / variance^2."""
        return float(self.count * self._sums[2] / self._sums[0] ** 2) if self._sums[0] else 0.0

    def _merge(self, count: int, mean: float, sums: Tuple[float, float, float]) -> None:
        (a2, a3, a4), (b2, b3, b4) = self._sums, sums
        total = self.count + count
        a, b = self.count / total, count / total
        step = mean - self.mean
        self._sums = (
            a2 + b2 + total * step**2 * a * b,
            a3 + b3 + total * step**3 * a * b * (a - b) + 3 * step * (a * b2 - b * a2),
            a4
            + b4
            + total * step**4 * a * b * (a * a - a * b + b * b)
            + 6 * step**2 * (a * a * b2 + b * b * a2)
            + 4 * step * (a * b3 - b * a3),
        )
        self.mean += step * b
        self.count = total
