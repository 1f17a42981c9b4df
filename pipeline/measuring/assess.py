"""Judges latencies of several fresh processes: interval of a percentile, and verdict on its limit. Rule: never a guess.

Samples of one process depend on each other, and processes differ. What n samples are worth is n / D, D the design
effect (dependence.py); interval and verdict are those of so many independent samples. D can be trusted where the bulk
of the samples is worth many independent ones and there are processes enough to see how they differ. Before that, and
sooner than that for limits far away, a verdict holds with a margin: also if all had been slower (to pass) or faster (to
fail) by as much as the slowest stretch is slower than the fastest, and at least by 1 / number of processes. Then what
counts is the dependence among samples beyond the limit, and that a burst that was not seen may be of 10 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.measuring import binomial, quantiles
from pipeline.measuring.dependence import Blocks, bulk_effect, design_effect
from pipeline.measuring.drift import Drift, find_drift
from pipeline.measuring.sequential import ALPHA, decide, level_of
from pipeline.measuring.verdict import Verdict

ENOUGH_PROCESSES = 12
"""See a mode that every third process is in with a chance of 99 %."""
ENOUGH_STRETCHES = 50
"""Independent samples that the bulk must be worth before D is trusted."""
BULK_SHARE = 0.25
"""Of the bulk's design effect, which the tail has at least: its own is seen in few samples."""
STEADY = 0.01
"""A drift below it is never held against a measurement."""
CLUSTERED = 2.0
"""Design effect from which on samples above the limit come in clusters, of which there may be few."""
BURST_NS = 10e6
"""How long a burst lasts that may have happened where none was seen."""
LONGEST_BURST = 16.0
"""In samples: more would leave fast models open that are far from their limit."""
STRETCH = 64


@dataclass(frozen=True)
class Assessment:
    """What the samples say of one percentile."""

    verdict: Verdict | None
    """Of the limit; None where there is none."""
    measured_ns: float
    """The percentile of all samples."""
    interval_ns: tuple[float, float] | None
    """It holds the percentile with 95 %, whenever one looks; None where too little is known."""
    effective_samples: float
    """How many independent samples they are worth."""
    num_above: int
    """Samples above the limit."""
    drift: Drift | None
    """Where it is too large for a verdict, or without a limit for an interval."""
    margin: float | None
    """What a verdict had to bear; None where D is trusted, and it had not to."""

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """Return the interval in milliseconds."""
        return None if self.interval_ns is None else (self.interval_ns[0] / 1e6, self.interval_ns[1] / 1e6)


def assess(blocks: Blocks, percentile: float, *, limit_ms: float | None = None, look: int | None = None) -> Assessment:
    """Judge the samples, in ns, of each process.

    Args:
        blocks: At least one process with at least one sample, in the order in which they ran.
        percentile: Which one, 0 < percentile < 100.
        limit_ms: What it may be.
        look: Number of this look, from 1; None where there is only one, which then spends no error on others.
    """
    samples = np.concatenate(blocks)
    alpha = ALPHA if look is None else level_of(look)
    measured = quantiles.percentile_of(samples, percentile)
    bulk = bulk_effect(blocks)
    is_trusted = len(blocks) >= ENOUGH_PROCESSES and samples.size / bulk >= ENOUGH_STRETCHES
    effect = max(design_effect([block > measured for block in blocks], alpha / 2), BULK_SHARE * bulk)
    drift = find_drift(blocks)
    ratio = 1.0 if limit_ms is None or measured <= 0 else limit_ms * 1e6 / measured
    distance = max(ratio, 1 / ratio) - 1
    matters = drift is not None and abs(drift.share) >= max(STEADY, distance / 10)
    is_steady = drift is None or abs(drift.share) < STEADY
    interval = _interval(samples, percentile, samples.size / effect, alpha / 2) if is_trusted and is_steady else None
    margin = max(1 + 1 / len(blocks), _spread(blocks))
    verdict = None
    if limit_ms is not None:
        trial = _Trial(blocks, percentile, limit_ms, look or 1)
        verdict = trial.verdict(_burst(samples), margin)
        if verdict is Verdict.UNDECIDED and is_trusted:
            verdict = trial.verdict(effect, 1.0)
        verdict = Verdict.UNDECIDED if matters else verdict
    return Assessment(
        verdict=verdict,
        measured_ns=measured,
        interval_ns=interval,
        effective_samples=max(1.0, samples.size / effect),
        num_above=0 if limit_ms is None else int((samples / 1e6 > limit_ms).sum()),
        drift=drift if matters else None,
        margin=None if is_trusted else margin,
    )


@dataclass(frozen=True)
class _Trial:
    """Both tests of one limit."""

    blocks: Blocks
    percentile: float
    limit_ms: float
    look: int

    def verdict(self, effect: float, margin: float) -> Verdict:
        """Return what holds also if all had been slower, or faster, by the margin."""
        if self._decide(effect, margin) is Verdict.PASS:
            return Verdict.PASS
        return Verdict.FAIL if self._decide(effect, 1 / margin) is Verdict.FAIL else Verdict.UNDECIDED

    def _decide(self, effect: float, slower: float) -> Verdict:
        """Decide as if all samples were slower by this factor; those above count with the dependence among them."""
        above = [block / 1e6 * slower > self.limit_ms for block in self.blocks]
        num_above, size = sum(int(block.sum()) for block in above), sum(block.size for block in above)
        if num_above == size:  # nothing varies that would tell D: without a margin each process counts once
            effect = max(effect, size / len(self.blocks)) if slower == 1.0 else effect
        elif (seen := design_effect(above, None)) < CLUSTERED:
            effect = max(effect, seen)  # a few samples above, each alone: their number says it all
        else:
            effect = max(effect, design_effect(above, level_of(self.look)))
        return decide(size / effect, num_above / effect, self.percentile, self.look)


def _spread(blocks: Blocks) -> float:
    medians = np.concatenate([_medians(_cut(block)) for block in blocks])
    return float(medians.max() / medians.min())


def _burst(samples: np.ndarray) -> float:
    """Return how many samples a burst of what disturbs them may spoil: bursts last a time, not a number of samples."""
    return min(max(BURST_NS / max(float(np.median(samples)), 1.0), 1.0), LONGEST_BURST)


def _cut(block: np.ndarray) -> np.ndarray:
    """Return stretches as rows; a rest too short for one is left out."""
    length = min(STRETCH, block.size)
    return block[: block.size // length * length].reshape(-1, length)


def _medians(stretches: np.ndarray) -> np.ndarray:
    medians: np.ndarray = np.maximum(np.median(stretches, axis=1), 1.0)
    return medians


def _interval(samples: np.ndarray, percentile: float, worth: float, tail: float) -> tuple[float, float] | None:
    """Return the order statistics that bound the percentile of so many independent samples as these are worth."""
    share, each = float(quantiles.exact_share(percentile)), worth / samples.size
    high = _first(samples.size, lambda rank: binomial.at_most((rank - 1) * each, worth, share) >= 1 - tail)
    low = _first(samples.size, lambda rank: binomial.at_least(rank * each, worth, share) < 1 - tail) - 1
    if low < 1 or high > samples.size:
        return None
    ordered = np.partition(samples, (low - 1, high - 1))
    return float(ordered[low - 1]), float(ordered[high - 1])


def _first(size: int, holds: Callable[[int], bool]) -> int:
    """Return the least rank for which `holds`, which never turns back; size + 1 where there is none."""
    low, high = 1, size + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
