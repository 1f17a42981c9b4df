"""Exact tails of the binomial distribution: what every bound and every verdict of this package rests on.

Rule: standard library only, and each tail is computed directly, so that a small one keeps its digits. Counts may be
fractions: of samples that depend on each other, fewer count (Korn and Graubard, Survey Methodology 24, 1998, 193-201).
"""

import math


def at_most(successes: float, trials: float, chance: float) -> float:
    """Return P(X <= successes) for X ~ Binomial(trials, chance)."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    return incomplete_beta(1 - chance, chance, trials - successes, successes + 1)


def at_least(successes: float, trials: float, chance: float) -> float:
    """Return P(X >= successes) for X ~ Binomial(trials, chance)."""
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    return incomplete_beta(chance, 1 - chance, successes, trials - successes + 1)


def incomplete_beta(x: float, y: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), with y = 1 - x given for its digits.

    A binomial tail is one (DLMF 8.17.5). The continued fraction 8.17.22 converges fast for
    x < (a + 1) / (a + b + 2); beyond, I_x(a, b) = 1 - I_y(b, a) (8.17.4).
    """
    if x <= 0.0 or y <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _leading_term(y, x, b, a) * _continued_fraction(y, b, a)
    return _leading_term(x, y, a, b) * _continued_fraction(x, a, b)


def _leading_term(x: float, y: float, a: float, b: float) -> float:
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log(y) - log_beta) / a


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Evaluate DLMF 8.17.22, 1 / (1 + d_1 / (1 + d_2 / ...)), by the modified Lentz algorithm."""
    d = 1.0 / (1.0 + _coefficient(1, x, a, b))
    c, value, step = 1.0, d, 2
    while True:
        coefficient = _coefficient(step, x, a, b)
        d = 1.0 / (1.0 + coefficient * d)
        c = 1.0 + coefficient / c
        value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            return value
        step += 1


def _coefficient(step: int, x: float, a: float, b: float) -> float:
    m = step // 2
    if step % 2 == 0:
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
