"""Whether latencies go somewhere while they are sampled. Rule: processes are the witnesses, since they are independent.

Three tests of the median and three of the p90, all in logarithms: the trend over the processes, in the order in which
they ran, the largest step between earlier and later ones (Bonferroni's bound over the places of the step), and what the
second half of each process has over its first. All are judged by how much processes differ, so that what merely
wanders, or differs from process to process, is no drift. With few processes it is the trend over stretches, whose
degrees of freedom are reduced by their autocorrelation (Santer et al., JGR 105, 2000, equation 6).
"""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.measuring import students_t
from pipeline.measuring.dependence import Blocks

LEVEL = 0.05
"""Of each test: a false alarm costs time, a drift that is missed costs a verdict."""
FEWEST_PROCESSES = 6
NUM_STRETCHES = 24
QUANTILES = (0.5, 0.9)


@dataclass(frozen=True)
class Drift:
    """A change that is no chance."""

    share: float
    """Over the whole time, or over a process: 0.1 is slower by 10 %."""
    what: str
    """Of which figure, and over what."""


def find_drift(blocks: Blocks) -> Drift | None:
    """Return the largest drift that a test finds, or None. Processes that ended early are no witnesses."""
    usual = float(np.median([block.size for block in blocks]))
    blocks = [block for block in blocks if 2 * block.size >= usual]
    found = [drift for level in QUANTILES for drift in _drifts(blocks, level)]
    return max(found, key=lambda drift: abs(drift.share), default=None)


def _drifts(blocks: Blocks, level: float) -> list[Drift]:
    name = "median" if level == 0.5 else f"p{100 * level:g}"
    if len(blocks) < FEWEST_PROCESSES:
        pieces = [piece for block in blocks for piece in np.array_split(block, NUM_STRETCHES // len(blocks))]
        chance, change = _trend(_logs(pieces, level), is_independent=False)
        return [Drift(math.expm1(change), f"{name}, over the run")] if chance < LEVEL else []
    found = []
    logs = _logs(blocks, level)
    chance, change = _step(logs)
    if chance < LEVEL:
        found.append(Drift(math.expm1(change), f"{name}, in one step between processes"))
    chance, change = _trend(logs, is_independent=True)
    if chance < LEVEL:
        found.append(Drift(math.expm1(change), f"{name}, from the first process to the last"))
    halves = [np.array_split(block, 2) for block in blocks if block.size >= 2]
    if len(halves) >= FEWEST_PROCESSES:
        gains = _logs([half[1] for half in halves], level) - _logs([half[0] for half in halves], level)
        if _chance_of(gains.mean(), gains.std(ddof=1) / math.sqrt(gains.size), gains.size - 1) < LEVEL:
            found.append(Drift(math.expm1(2 * float(gains.mean())), f"{name}, within a process"))
    return found


def _logs(pieces: Blocks, level: float) -> np.ndarray:
    return np.log([max(float(np.quantile(piece, level)), 1.0) for piece in pieces if piece.size])


def _trend(values: np.ndarray, *, is_independent: bool) -> tuple[float, float]:
    """Return the chance of such a slope without a trend, and the change from end to end."""
    size = values.size
    if size < 4:
        return 1.0, 0.0
    times = np.arange(size) - (size - 1) / 2
    slope = float(times @ values / (times @ times))
    rest = values - values.mean() - slope * times
    effective = float(size) if is_independent else _effective_size(rest)
    if effective <= 3:
        return 1.0, 0.0
    error = math.sqrt(float(rest @ rest) / (effective - 2) / float(times @ times))
    return _chance_of(slope, error, effective - 2), slope * size


def _step(values: np.ndarray) -> tuple[float, float]:
    """Return the chance of the least likely step without one, and its size; at least two processes on either side."""
    places = range(2, values.size - 1)
    steps = [(values[:place], values[place:]) for place in places]
    chances = []
    for before, after in steps:
        rest = float(((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum())
        error = math.sqrt(rest / (values.size - 2) * (1 / before.size + 1 / after.size))
        chances.append(_chance_of(float(after.mean() - before.mean()), error, values.size - 2))
    best = int(np.argmin(chances))
    return len(places) * chances[best], float(steps[best][1].mean() - steps[best][0].mean())


def _effective_size(rest: np.ndarray) -> float:
    variance = float(rest @ rest)
    lag1 = float(rest[:-1] @ rest[1:]) / variance if variance > 0 else 0.0
    return rest.size * (1 - max(lag1, 0.0)) / (1 + max(lag1, 0.0))


def _chance_of(value: float, error: float, freedom: float) -> float:
    if abs(value) < 1e-12:
        return 1.0
    return students_t.two_sided(value / error if error > 0 else math.inf, freedom)
