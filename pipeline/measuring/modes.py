"""Whether samples have two modes. Rule: a valley between two peaks, in a smoothed histogram; nothing of their form."""

import math
from dataclasses import dataclass

import numpy as np

LEAST_SAMPLES = 200
LEAST_SHARE = 0.05
"""Of the samples, in the smaller mode."""
LEAST_PEAK = 0.02
"""Of the higher peak's height."""
VALLEY = 0.5
"""Of the lower peak's height, which the valley is below."""
NUM_BINS = 256


@dataclass(frozen=True)
class TwoModes:
    """Two latencies that a model has."""

    fast: float
    slow: float
    slow_share: float


def find_modes(samples: np.ndarray) -> TwoModes | None:
    """Return two modes, in the unit of the samples, or None where there is one."""
    if samples.size < LEAST_SAMPLES:
        return None
    logs = np.log(np.maximum(samples.astype(np.float64), 1.0))
    low, high = np.quantile(logs, (0.005, 0.995))
    kept = logs[(logs >= low) & (logs <= high)]
    if high - low < 1e-6:
        return None
    counts, edges = np.histogram(kept, NUM_BINS)
    quarter = float(np.subtract(*np.quantile(kept, (0.75, 0.25)))) / 1.349
    width = 0.9 * min(float(kept.std()), quarter or math.inf) * kept.size**-0.2 / (edges[1] - edges[0])
    curve = _smooth(counts, max(width, 1.0))
    least = LEAST_PEAK * curve.max()
    peaks = [i for i in range(NUM_BINS) if curve[i] >= least and curve[i] == curve[max(0, i - 2) : i + 3].max()]
    found = [_between(curve, counts, first, second) for i, first in enumerate(peaks) for second in peaks[i + 1 :]]
    deepest = min((each for each in found if each), key=lambda each: each[0], default=None)
    if deepest is None:
        return None
    _, first, second, slow_share = deepest
    centers = (edges[:-1] + edges[1:]) / 2
    return TwoModes(math.exp(centers[first]), math.exp(centers[second]), slow_share)


def _between(curve: np.ndarray, counts: np.ndarray, first: int, second: int) -> tuple[float, int, int, float] | None:
    """Return depth, peaks and the slower share, where two peaks are modes."""
    valley = first + int(np.argmin(curve[first : second + 1]))
    depth = float(curve[valley] / min(curve[first], curve[second]))
    slow_share = float(counts[valley:].sum() / counts.sum())
    is_found = depth < VALLEY and min(slow_share, 1 - slow_share) >= LEAST_SHARE
    return (depth, first, second, slow_share) if is_found else None


def _smooth(counts: np.ndarray, width: float) -> np.ndarray:
    reach = int(4 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return np.convolve(np.pad(counts, reach), kernel / kernel.sum(), mode="valid")
