"""How many independent samples those that depend on each other are worth. Rule: no model of the dependence.

The share of samples above a threshold has, where they depend on each other, a variance `D` times that of a binomial
share: the design effect. It is estimated from stretches: the variance of counts over stretches of equal length is that
of a bootstrap of whole blocks (Carlstein, Annals of Statistics 14, 1986), in closed form, without drawing. Too short a
stretch misses dependence that reaches further, and nobody knows how far it reaches: the largest of all lengths counts,
from a few samples to several processes, each raised for its degrees of freedom (Korn and Graubard, Survey Methodology
24, 1998: n / D samples, and t for z). Clusters are seen only where there are some, so that the degrees of freedom are
those of the stretches with a sample above. All this errs towards too few effective samples.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.measuring import students_t

Blocks = Sequence[np.ndarray]
"""Samples of each fresh process, in the order taken."""

SHORTEST_STRETCH = 8
LEAST_STRETCHES = 8
LEAST_PROCESSES = 4
"""From so many on, processes themselves count as stretches."""


def design_effect(above: Blocks, tail: float | None) -> float:
    """Return `D` of the share of True in bool blocks, at least 1.

    Args:
        above: Whether each sample is above the threshold, process by process.
        tail: Probability of each tail of the interval or test that uses it; None: not raised for its uncertainty.
    """
    share = sum(int(block.sum()) for block in above) / sum(block.size for block in above)
    if share in (0.0, 1.0):
        return 1.0
    effects = (_effect(counts, sizes, share, tail) for counts, sizes in _stretches(above))
    return max((1.0, *effects))


def bulk_effect(blocks: Blocks) -> float:
    """Return the design effect where there are samples enough to see it: of the median and of the p90."""
    merged = np.concatenate(blocks)
    return max(
        design_effect([block > threshold for block in blocks], 0.025) for threshold in np.quantile(merged, (0.5, 0.9))
    )


def lag1_autocorrelation(samples: np.ndarray, block_sizes: tuple[int, ...]) -> float | None:
    """Return the correlation of each sample with the next of its block, or None where nothing varies.

    Deviations are from each block's own mean, so that a difference between processes does not count.
    """
    blocks = np.split(samples.astype(np.float64), np.cumsum(block_sizes)[:-1])
    deviations = [block - block.mean() for block in blocks if block.size]
    variance = sum(float(block @ block) for block in deviations)
    if variance == 0.0:
        return None
    return sum(float(block[:-1] @ block[1:]) for block in deviations) / variance


def _effect(counts: np.ndarray, sizes: np.ndarray, share: float, tail: float | None) -> float:
    """Return the variance of counts over stretches, relative to independent samples, raised for its uncertainty."""
    squares = (counts - share * sizes) ** 2
    binomial = sizes.mean() * share * (1 - share)
    ratio = float(squares.sum() / (counts.size - 1) / binomial)
    if tail is None:
        return ratio
    freedom = max(1, min(counts.size, int((counts > 0).sum())) - 1)
    return ratio * students_t.variance_ratio(tail, freedom)


def _stretches(above: Blocks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield counts of True and sizes of all stretches of one length, for each length."""
    sums = [np.concatenate(([0], np.cumsum(block))) for block in above]
    length = SHORTEST_STRETCH
    while sum(block.size // length for block in above) >= LEAST_STRETCHES and length <= max(map(len, above)):
        counts = np.concatenate([np.diff(total[::length]) for total in sums])
        yield counts, np.full(counts.size, length)
        length *= 2
    counts, sizes = np.array([total[-1] for total in sums]), np.array([block.size for block in above])
    together = 1
    while len(above) // together >= (LEAST_PROCESSES if together == 1 else LEAST_STRETCHES):
        kept = len(above) // together * together
        yield counts[:kept].reshape(-1, together).sum(1), sizes[:kept].reshape(-1, together).sum(1)
        together *= 2
