"""How far one tensor parts from another, summed up over samples. Rule: memory does not grow with the samples."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Similarity:
    """Sums over all values that were compared."""

    signal: float = 0.0
    """Of squares of the expected values."""
    found: float = 0.0
    """Of squares of the found values."""
    product: float = 0.0
    """Of expected times found."""
    noise: float = 0.0
    """Of squares of the differences."""
    max_abs_diff: float = 0.0
    num_values: int = 0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Compare two tensors of one shape, value by value, in float64."""
        first, second = (values.astype(np.float64).ravel() for values in (expected, found))
        difference = second - first
        self.signal += float(first @ first)
        self.found += float(second @ second)
        self.product += float(first @ second)
        self.noise += float(difference @ difference)
        self.max_abs_diff = max(self.max_abs_diff, float(np.abs(difference).max(initial=0.0)))
        self.num_values += first.size

    @property
    def snr_db(self) -> float:
        """10 log10(signal / noise): infinite where nothing differs, minus infinity where nothing was to be found."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between all expected and all found values; 1 where both are nothing but zeros."""
        if self.signal == 0 or self.found == 0:
            return 1.0 if self.signal == self.found else 0.0
        return self.product / math.sqrt(self.signal * self.found)
