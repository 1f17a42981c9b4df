"""Counts of the sizes |x| of a tensor's values, in constant memory. NumPy, Python 3.8.

Grids have their zero point at 0, so only sizes matter for the width of a range; the signed extremes are kept exactly
beside the counts. Rule: what was counted never depends on the order or the batches in which it came.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

SMALLEST_LIMIT = 2.0**-60
"""Below this all sizes fall into the first bin: a grid that fine is never wanted."""
PART = 1 << 17
"""Values counted at once: their bins fit into a processor's cache."""


class Extremes:
    """The exact lowest and highest value seen, and how many values there were."""

    def __init__(self) -> None:
        self.low = float("inf")
        self.high = float("-inf")
        self.count = 0

    def add(self, values: np.ndarray) -> None:
        """Widen the extremes to `values`.

        Raises:
            ValueError: a value is not finite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            num_nan, num_bad = int(np.isnan(values).sum()), int((~np.isfinite(values)).sum())
            raise ValueError(
                "expected finite values; got {} NaN and {} infinite ones among {}".format(
                    num_nan, num_bad - num_nan, values.size
                )
            )
        self._widen(low, high, values.size)

    @classmethod
    def of_zeros(cls, count: int) -> Extremes:
        """Return those of so many zeros."""
        zeros = cls()
        zeros._widen(0.0, 0.0, count)
        return zeros

    def join(self, other: Extremes) -> None:
        """Widen the extremes to what `other` saw."""
        self._widen(other.low, other.high, other.count)

    @property
    def largest(self) -> float:
        """The largest size of a value; 0 before any came."""
        return max(abs(self.low), abs(self.high)) if self.count else 0.0

    @property
    def sides(self) -> Tuple[float, float]:
        """How far values lie below zero, and above."""
        return (max(-self.low, 0.0), max(self.high, 0.0)) if self.count else (0.0, 0.0)

    def cut(self, limit: float) -> Tuple[float, float]:
        """Return the range seen, cut where sizes exceed `limit`. Raises as `cut_sides`."""
        return self.cut_sides(limit, limit)

    def cut_sides(self, below: float, above: float) -> Tuple[float, float]:
        """Return the range seen, cut below -`below` and above `above`.

        Raises:
            ValueError: no value was seen, or the range would be empty.
        """
        if not self.count:
            raise ValueError("expected at least one value; got none: the tensor is empty, or no sample went through it")
        low, high = min(max(self.low, -below), above), max(min(self.high, above), -below)
        if self.largest > 0 and low == high == 0:
            raise ValueError(
                "expected a range wider than zero; got the limit {} for values in [{}, {}], nearly all of them zero: "
                "use min_max, or a higher percentile".format(max(below, above), self.low, self.high)
            )
        return low, high

    def _widen(self, low: float, high: float, count: int) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += count


class Histogram:
    """Sizes counted in equal bins over [0, limit), zeros apart.

    The limit is the power of two above the largest size. When a larger value comes it doubles, and pairs of bins
    merge: edges stay edges, so that the counts are those of a histogram that had known its limit from the start.
    """

    def __init__(self, num_bins: int) -> None:
        """`num_bins` is a power of two; at least half of them lie below the largest size.

        Raises:
            ValueError: it is not.
        """
        if num_bins < 2 or num_bins & (num_bins - 1):
            raise ValueError("bins: expected a power of two, so that pairs of bins can merge; got {}".format(num_bins))
        self.extremes = Extremes()
        self.zeros = 0
        self.counts = np.zeros(num_bins, np.int64)
        self.limit = SMALLEST_LIMIT

    def add(self, values: np.ndarray) -> None:
        """Count `values`, of any shape, as float32.

        Raises:
            ValueError: a value is not finite.
        """
        values = np.asarray(values, np.float32).ravel(order="K")
        self.extremes.add(values)
        self._grow()
        for start in range(0, values.size, PART):
            self._count(np.abs(values[start : start + PART]))

    def add_zeros(self, num_zeros: int) -> None:
        """Count so many zeros."""
        self.extremes.join(Extremes.of_zeros(num_zeros))
        self.zeros += num_zeros

    def merged(self, num_bins: int) -> Histogram:
        """Return the same in `num_bins` bins, a power of two that is at most the number here."""
        result = Histogram(num_bins)
        result.extremes, result.zeros, result.limit = self.extremes, self.zeros, self.limit
        result.counts = self.counts.reshape(num_bins, -1).sum(axis=1)
        return result

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / len(self.counts)

    @property
    def num_used(self) -> int:
        """Number of bins up to the one that holds the largest size."""
        return int(self.extremes.largest / self.width) + 1

    def find_size(self, share: float) -> float:
        """Return the size that `share` of all values does not exceed, exact to the width of a bin.

        Within a bin values are taken as evenly spread; ranks are those of `numpy.percentile`.
        """
        rank = share * (self.extremes.count - 1) - self.zeros
        if rank < 0:
            return 0.0
        if rank >= self.extremes.count - self.zeros - 1:
            return self.extremes.largest
        below = np.cumsum(self.counts)
        place = int(np.searchsorted(below, rank, side="right"))
        inside = (rank - (below[place] - self.counts[place]) + 0.5) / self.counts[place]
        return float(min((place + min(inside, 1.0)) * self.width, self.extremes.largest))

    def share_above(self, size: float) -> float:
        """Return which share of all values is larger than `size`, exact to one bin."""
        if size >= self.extremes.largest:
            return 0.0
        place, inside = divmod(size / self.width, 1)
        above = self.counts[int(place) + 1 :].sum() + self.counts[int(place)] * (1 - inside)
        return float(above / self.extremes.count)

    def _grow(self) -> None:
        while self.extremes.largest >= self.limit:
            merged = self.counts[::2] + self.counts[1::2]
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2

    def _count(self, sizes: np.ndarray) -> None:
        num_zeros = int(np.count_nonzero(sizes == 0))
        sizes *= np.float32(1 / self.width)  # a power of two: exact
        self.counts += np.bincount(sizes.astype(np.intp), minlength=len(self.counts))
        self.counts[0] -= num_zeros
        self.zeros += num_zeros
