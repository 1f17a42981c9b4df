"""Ratios of scales at which no integer falls half-way between two codes. NumPy, Python 3.8.

An integer operator gives the code of a x n, with n a sum of products of codes and a the scale that it comes with over
that of the output. Where a = p / q with q odd, p x n / q is never half of an odd number, and at least 1 / 2q away from
one. Floating point errs by less (255 x 2^-24 a step), so that every runtime rounds to the same code, in whatever order
it multiplies. Where a is any number, a few in a million of the codes depend on that order; layer by layer they become
as many as rounding itself makes.
"""

from __future__ import annotations

import numpy as np

DENOMINATOR = 1023
"""Odd: of the ratios of tensors that are added. Half a step of a ratio near 1 is 0.05 %."""
LEAST_DENOMINATOR = 512
LARGEST_DENOMINATOR = 2**13
"""Beyond, an integer can be as near to a border as floating point errs: such a ratio is left as it is."""


def raise_ratios(ratios: np.ndarray) -> np.ndarray:
    """Return float64 of the same shape: the ratios, raised by 0.4 % at most to p / q with q odd."""
    numerator = np.maximum(1.0, np.ceil(ratios * LEAST_DENOMINATOR))
    denominator = np.floor(numerator / ratios)
    denominator -= denominator % 2 == 0
    result: np.ndarray = np.where(denominator <= LARGEST_DENOMINATOR, numerator / denominator, ratios)
    return result


def count_steps(ratio: float) -> int:
    """Return the p, 1 or more, for which p / DENOMINATOR is next to a ratio."""
    return max(1, round(ratio * DENOMINATOR))
