"""How much faster one model is than another, from blocks that were measured in turn. Rule: no model of the noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.measuring import quantiles
from pipeline.measuring.verdict import Verdict


@dataclass(frozen=True)
class Speedup:
    """The median over rounds of (median latency of the first / median latency of the second)."""

    ratio: float
    """Above 1 where the second is faster."""
    interval: tuple[float, float] | None
    """Two-sided 95 % interval of the median, by order statistics; None below six rounds."""
    num_rounds: int

    @property
    def verdict(self) -> Verdict:
        """Whether the second is faster: undecided where the interval holds 1, or there is none."""
        if self.interval is None or self.interval[0] <= 1 <= self.interval[1]:
            return Verdict.UNDECIDED
        return Verdict.PASS if self.ratio > 1 else Verdict.FAIL


def speedup(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Speedup:
    """Compare the samples of two models round by round; a round is one block of each, taken one after the other."""
    medians = [
        (quantiles.percentile_of(before, 50), quantiles.percentile_of(after, 50))
        for before, after in zip(first, second, strict=True)
    ]
    ratios = np.array([before / after for before, after in medians])
    return Speedup(quantiles.percentile_of(ratios, 50), quantiles.interval(ratios, 50), len(ratios))
