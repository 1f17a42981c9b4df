"""THE percentile of this project and its distribution-free bounds. Rule: nobody else computes one.

The p-quantile of n samples is their ceil(n*p)-th order statistic. For independent samples of any
distribution, the number of samples below its true p-quantile q is Binomial(n, p) (for ties: at most so
below q, at least so up to q). Therefore P(X_(r) >= q) >= P(Binomial(n, p) <= r - 1) and
P(X_(r) <= q) >= P(Binomial(n, p) >= r): order statistics bound q with exact confidence, without a
model of the distribution (David and Nagaraja, Order Statistics, 3rd ed., section 7.1).
Samples that depend on each other carry less information than these bounds assume.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from pipeline.measuring import binomial


def exact_share(percentile: float) -> Fraction:
    """Return percentile / 100 as it was written: 99.9 is 999/1000, not the float nearest to it.

    Raises ValueError outside 0 < percentile < 100.
    """
    if not 0 < percentile < 100:
        raise ValueError(f"percentile: expected 0 < percentile < 100; got {percentile}")
    return Fraction(repr(float(percentile))) / 100


def percentile_rank(num_samples: int, percentile: float) -> int:
    """Return ceil(n*p), the rank (from 1) of the order statistic that is the percentile."""
    return math.ceil(num_samples * exact_share(percentile))


def percentile_of(samples: np.ndarray, percentile: float) -> float:
    """Return the ceil(n*p)-th order statistic of `samples`; raises ValueError where there are none."""
    if samples.size == 0:
        raise ValueError("percentile_of: expected at least one sample; got none")
    return _order_statistic(samples, percentile_rank(samples.size, percentile))


def upper_bound(samples: np.ndarray, percentile: float, confidence: float = 0.95) -> float | None:
    """Return the least sample that is >= the true percentile with `confidence`, or None: too few samples."""
    rank = upper_rank(samples.size, percentile, confidence)
    return None if rank is None else _order_statistic(samples, rank)


def lower_bound(samples: np.ndarray, percentile: float, confidence: float = 0.95) -> float | None:
    """Return the greatest sample that is <= the true percentile with `confidence`, or None: too few samples."""
    rank = lower_rank(samples.size, percentile, confidence)
    return None if rank is None else _order_statistic(samples, rank)


def interval(samples: np.ndarray, percentile: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the two-sided interval with equal tails, or None where either end has too few samples."""
    one_sided = (1 + confidence) / 2
    low = lower_bound(samples, percentile, one_sided)
    high = upper_bound(samples, percentile, one_sided)
    return None if low is None or high is None else (low, high)


def upper_rank(num_samples: int, percentile: float, confidence: float) -> int | None:
    """Return the least rank r with P(Binomial(n, p) <= r - 1) >= confidence, or None."""
    share = float(exact_share(percentile))
    rank = _first(num_samples, lambda r: binomial.at_most(r - 1, num_samples, share) >= confidence)
    return rank if rank <= num_samples else None


def lower_rank(num_samples: int, percentile: float, confidence: float) -> int | None:
    """Return the greatest rank r with P(Binomial(n, p) >= r) >= confidence, or None."""
    share = float(exact_share(percentile))
    rank = _first(num_samples, lambda r: binomial.at_least(r, num_samples, share) < confidence) - 1
    return rank if rank >= 1 else None


def _first(num_samples: int, holds: Callable[[int], bool]) -> int:
    """Return the least rank in 1..num_samples for which `holds`, which never turns back; num_samples + 1 if none."""
    low, high = 1, num_samples + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _order_statistic(samples: np.ndarray, rank: int) -> float:
    return float(np.partition(samples, rank - 1)[rank - 1])
