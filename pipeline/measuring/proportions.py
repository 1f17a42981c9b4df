"""Intervals for shares of a test set: one share, and the difference of two on the same images.

Rule: shown beside a verdict, never deciding it; on a fixed test set the point value decides.
"""

import math
from statistics import NormalDist

import numpy as np


def wilson_interval(num_correct: float, num_samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson, JASA 22, 1927, equation 4)."""
    if num_samples < 1:
        raise ValueError(f"wilson_interval: expected at least one sample; got {num_samples}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = num_correct / num_samples
    center = share + z * z / (2 * num_samples)
    spread = z * math.sqrt(share * (1 - share) / num_samples + z * z / (4 * num_samples**2))
    scale = 1 + z * z / num_samples
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def paired_drop(before: np.ndarray, after: np.ndarray) -> float:
    """Return the share correct before minus the share correct after, bool[num_samples] each."""
    return (int(before.sum()) - int(after.sum())) / before.size


def paired_interval(before: np.ndarray, after: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of `paired_drop`: Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650).

    It squares and adds the distances of the two Wilson intervals, less what the pairs share by their
    correlation phi, whose numerator is corrected for continuity where it is positive.
    """
    both, lost = int((before & after).sum()), int((before & ~after).sum())
    gained, neither = int((~before & after).sum()), int((~before & ~after).sum())
    share_before, share_after = (both + lost) / before.size, (both + gained) / before.size
    low_before, high_before = wilson_interval(both + lost, before.size, confidence)
    low_after, high_after = wilson_interval(both + gained, before.size, confidence)
    phi = _correlation(both, lost, gained, neither)
    drop = share_before - share_after
    below = _joint(share_before - low_before, high_after - share_after, phi)
    above = _joint(high_before - share_before, share_after - low_after, phi)
    return drop - below, drop + above


def _joint(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))


def _correlation(both: int, lost: int, gained: int, neither: int) -> float:
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    numerator = float(both * neither - lost * gained)
    if numerator > 0:
        numerator = max(numerator - (both + lost + gained + neither) / 2, 0)
    return numerator / math.sqrt(margins)
