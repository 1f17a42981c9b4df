"""Range methods: from the values that pass through a tensor to the range that its int8 grid covers. NumPy, Python 3.8.

A method is a table of the recipe; `start` begins an observer, which sees values batch by batch in constant memory and
gives the range at any time. Rule: where the zero point is 0, a method chooses one size, and what is larger is cut.
A tensor that was never below zero has the codes 0..N (N = 255, or 127 where a runtime has no uint8), others -127..127;
or, on asymmetric grids, 0..255 with a zero point between, so that each side of zero has a size of its own.

The union is the registry: a method is added by one class and one word in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar, Dict, Literal, Protocol, Sequence, Tuple, Union

import numpy as np

from calibration.clipping import (
    find_least_divergence,
    find_least_squared_error,
    find_least_squared_error_of_sides,
)
from calibration.histogram import Extremes, Histogram

RECIPE_TABLE: Dict[str, object] = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}
"""How pydantic reads a method's table."""
SIGNED_CODES = 127
"""Codes on either side of zero of a tensor that can be negative."""
FEWEST_BINS = 1024
"""Fewer bins leave a search nothing to choose from: up to 256 codes, and half of the bins may lie above all values."""
PERCENTILE_BINS = 1 << 15
"""A percentile is exact to a 16,000th of the largest size."""

FindSize = Callable[[Histogram, int], float]
"""Of a histogram and the number of codes above zero."""
FindSizes = Callable[[Histogram, Histogram], Tuple[float, float]]
"""Of the histograms below and above zero."""


class Observer(Protocol):
    """What sees a tensor's values and knows its range."""

    def observe(self, values: np.ndarray) -> None:
        """Take in values of any shape; none is fine.

        Raises:
            ValueError: a value is not finite.
        """
        ...

    def range(self) -> Tuple[float, float]:
        """Return (low, high): below zero only where a value was, and at most as wide as what was seen.

        Raises:
            ValueError: no value was seen, or the range would be empty though values are not all zero.
        """
        ...


class Counts:
    """Sizes of a tensor's values, counted once for every method that looks at nothing else.

    Of an asymmetric grid either side of zero is counted for itself; what was never negative is cut as on any grid.
    """

    def __init__(self, num_bins: int, nonnegative_codes: int, *, asymmetric: bool = False) -> None:
        self.extremes = Extremes()
        self._below = Histogram(num_bins) if asymmetric else None
        self._above = Histogram(num_bins)
        """Of all sizes, where the grid is symmetric."""
        self._nonnegative_codes = nonnegative_codes

    def __len__(self) -> int:
        """Return the number of bins."""
        return len(self._above.counts)

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape.

        Raises:
            ValueError: a value is not finite.
        """
        self.extremes.add(values)
        if self._below is None:
            self._above.add(values)
        elif values.size and values.min() >= 0:
            self._above.add(values)
            self._below.add_zeros(values.size)
        else:
            self._above.add(np.maximum(values, 0))
            self._below.add(np.maximum(-values, 0))

    def cut(self, num_bins: int, find_size: FindSize, find_sizes: FindSizes) -> Tuple[float, float]:
        """Return the range seen, cut as a search among `num_bins` bins says."""
        seen = self.extremes
        if seen.low == seen.high or not seen.count:
            return seen.cut(seen.largest)
        above = self._above.merged(num_bins)
        if self._below is None or seen.low >= 0:
            return seen.cut(find_size(above, self._nonnegative_codes if seen.low >= 0 else SIGNED_CODES))
        return seen.cut_sides(*find_sizes(self._below.merged(num_bins), above))


@dataclass(frozen=True)
class MinMax:
    """The smallest and the largest value: nothing is cut. Best for uniform values; one outlier widens every step."""

    __pydantic_config__: ClassVar[Dict[str, object]] = RECIPE_TABLE

    kind: Literal["min_max"] = "min_max"
    """Which method."""

    def start(self, nonnegative_codes: int, *, asymmetric: bool = False) -> Observer:
        """Begin to observe a tensor, whose grid is asymmetric if it can be negative, or not."""
        return _MinMaxObserver()

    def cut(self, counts: Counts) -> Tuple[float, float]:
        """Return the range of what was counted."""
        return counts.extremes.cut(counts.extremes.largest)


@dataclass(frozen=True)
class MovingAverage:
    """The moving average of each batch's largest size (Jacob et al. 2018, arXiv 1712.05877, section 3.1)."""

    __pydantic_config__: ClassVar[Dict[str, object]] = RECIPE_TABLE

    kind: Literal["moving_average"] = "moving_average"
    """Which method."""
    momentum: float = 0.9
    """Weight of what came before, from 0 (the last batch alone) to below 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError("momentum: expected a number from 0 to below 1; got {}".format(self.momentum))

    def start(self, nonnegative_codes: int, *, asymmetric: bool = False) -> Observer:
        """Begin to observe a tensor; the first batch sets the average."""
        return _MovingAverageObserver(self.momentum, asymmetric)


@dataclass(frozen=True)
class Percentile:
    """The size that this share of the values does not exceed (Wu et al. 2020, arXiv 2004.09602, section 5.1)."""

    __pydantic_config__: ClassVar[Dict[str, object]] = RECIPE_TABLE

    kind: Literal["percentile"] = "percentile"
    """Which method."""
    percentile: float = 99.99
    """Percent of the values that are kept as they are, above 50, at most 100."""

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ValueError("percentile: expected percent above 50, at most 100; got {}".format(self.percentile))

    def start(self, nonnegative_codes: int, *, asymmetric: bool = False) -> Observer:
        """Begin to observe a tensor."""
        return _CountingObserver(self, Counts(PERCENTILE_BINS, nonnegative_codes, asymmetric=asymmetric))

    def cut(self, counts: Counts) -> Tuple[float, float]:
        """Return the range of what was counted, in any number of bins."""
        return counts.cut(len(counts), self._find_size, self._find_sizes)

    def _find_size(self, histogram: Histogram, num_codes: int) -> float:
        return histogram.find_size(self.percentile / 100)

    def _find_sizes(self, below: Histogram, above: Histogram) -> Tuple[float, float]:
        """Return what either tail cuts half of."""
        share = (1 + self.percentile / 100) / 2
        return below.find_size(share), above.find_size(share)


@dataclass(frozen=True)
class Entropy:
    """The cut that keeps most information, by Kullback-Leibler divergence: TensorRT's search (Migacz 2017)."""

    __pydantic_config__: ClassVar[Dict[str, object]] = RECIPE_TABLE

    kind: Literal["entropy"] = "entropy"
    """Which method."""
    bins: int = 4096
    """Bins of the histogram, a power of two from 1024; half of them or more lie below the largest size."""

    def __post_init__(self) -> None:
        _check_bins(self.bins)

    def start(self, nonnegative_codes: int, *, asymmetric: bool = False) -> Observer:
        """Begin to observe a tensor."""
        return _CountingObserver(self, Counts(self.bins, nonnegative_codes, asymmetric=asymmetric))

    def cut(self, counts: Counts) -> Tuple[float, float]:
        """Return the range of what was counted, in at least as many bins."""
        return counts.cut(self.bins, find_least_divergence, _find_least_divergence_of_sides)


@dataclass(frozen=True)
class MeanSquaredError:
    """The cut with the least mean squared error of rounding and cutting together (Banner et al. 2019, ACIQ)."""

    __pydantic_config__: ClassVar[Dict[str, object]] = RECIPE_TABLE

    kind: Literal["mean_squared_error"] = "mean_squared_error"
    """Which method."""
    bins: int = 4096
    """Bins of the histogram, a power of two from 1024; half of them or more lie below the largest size."""

    def __post_init__(self) -> None:
        _check_bins(self.bins)

    def start(self, nonnegative_codes: int, *, asymmetric: bool = False) -> Observer:
        """Begin to observe a tensor."""
        return _CountingObserver(self, Counts(self.bins, nonnegative_codes, asymmetric=asymmetric))

    def cut(self, counts: Counts) -> Tuple[float, float]:
        """Return the range of what was counted, in at least as many bins."""
        return counts.cut(self.bins, find_least_squared_error, find_least_squared_error_of_sides)


CountedRange = Union[MinMax, Percentile, Entropy, MeanSquaredError]
"""The methods that need nothing but counts, so that one stream serves them all."""
AnyRange = Union[MinMax, MovingAverage, Percentile, Entropy, MeanSquaredError]
"""Every range method; `kind` tells them apart."""


def start_all(
    methods: Sequence[CountedRange], nonnegative_codes: int, *, asymmetric: bool = False
) -> Tuple[Observer, ...]:
    """Begin to observe a tensor by several methods, which must all see the same values: these are counted once."""
    counts = Counts(PERCENTILE_BINS, nonnegative_codes, asymmetric=asymmetric)
    return tuple(_CountingObserver(method, counts, place == 0) for place, method in enumerate(methods))


class _MinMaxObserver:
    def __init__(self) -> None:
        self._extremes = Extremes()

    def observe(self, values: np.ndarray) -> None:
        self._extremes.add(values)

    def range(self) -> Tuple[float, float]:
        return self._extremes.cut(self._extremes.largest)


class _MovingAverageObserver:
    def __init__(self, momentum: float, asymmetric: bool) -> None:
        self._extremes = Extremes()
        self._momentum = momentum
        self._asymmetric = asymmetric
        self._below = self._above = 0.0

    def observe(self, values: np.ndarray) -> None:
        batch = Extremes()
        batch.add(values)
        if batch.count:
            below, above = batch.sides if self._asymmetric else (batch.largest, batch.largest)
            share = 1 - self._momentum if self._extremes.count else 1.0
            self._below += share * (below - self._below)
            self._above += share * (above - self._above)
            self._extremes.join(batch)

    def range(self) -> Tuple[float, float]:
        return self._extremes.cut_sides(self._below, self._above)


@dataclass(frozen=True)
class _CountingObserver:
    _method: CountedRange
    _counts: Counts
    _fills: bool = True
    """Whether no other observer fills the counts."""

    def observe(self, values: np.ndarray) -> None:
        if self._fills:
            self._counts.add(values)

    def range(self) -> Tuple[float, float]:
        return self._method.cut(self._counts)


def _find_least_divergence_of_sides(below: Histogram, above: Histogram) -> Tuple[float, float]:
    """Search the wider side with the codes that it has, and cut the other at the same size: few codes find nothing."""
    sides = (below.extremes.largest, above.extremes.largest)
    num_codes = round(255 * max(sides) / sum(sides))
    size = find_least_divergence(above if sides[1] >= sides[0] else below, num_codes)
    return min(sides[0], size), min(sides[1], size)


def _check_bins(bins: int) -> None:
    if bins < FEWEST_BINS or bins & (bins - 1):
        raise ValueError("bins: expected a power of two from {}; got {}".format(FEWEST_BINS, bins))
