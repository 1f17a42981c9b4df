"""Student's t: its tail and its quantile, from the incomplete beta function. Rule: standard library only."""

import math
from functools import cache
from statistics import NormalDist

from pipeline.measuring.binomial import incomplete_beta

MANY = 60


def two_sided(t: float, freedom: float) -> float:
    """Return P(|T| >= |t|) with `freedom` degrees of freedom (Abramowitz and Stegun 26.7.1)."""
    if math.isinf(t):
        return 0.0
    square = t * t
    return incomplete_beta(freedom / (freedom + square), square / (freedom + square), freedom / 2, 0.5)


@cache
def quantile(tail: float, freedom: float) -> float:
    """Return the t with P(T >= t) = `tail`, for 0 < tail < 0.5.

    With many degrees of freedom by the expansion of Abramowitz and Stegun 26.7.5, which then errs by less than 1e-4.
    """
    if freedom > MANY:
        z = NormalDist().inv_cdf(1 - tail)
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        return float(z + first / freedom + second / freedom**2)
    low, high = 0.0, 2.0
    while two_sided(high, freedom) > 2 * tail:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 2 * tail else (low, middle)
    return high


@cache
def variance_ratio(tail: float, freedom: float) -> float:
    """Return by what a variance with few degrees of freedom is raised, so that a normal interval covers: (t / z)^2."""
    return float((quantile(tail, freedom) / NormalDist().inv_cdf(1 - tail)) ** 2)
