"""How many samples are enough: how far ranges still move as samples are added. Python 3.8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

TOLERANCE = 0.02
"""A range this near its last value moves codes by less than an eighth of a bit; other seeds move it more."""


@dataclass(frozen=True)
class CurvePoint:
    """How far the ranges from so many samples are from those of all samples."""

    num_samples: int
    largest_change: float
    """Of any tensor's size: |size / size from all samples - 1|."""
    mean_change: float
    """The same, averaged over tensors."""


class RangeCurve:
    """Keeps the ranges whenever the number of samples has doubled."""

    def __init__(self) -> None:
        self._sizes: List[Tuple[int, Dict[str, float]]] = []

    def is_due(self, num_samples: int) -> bool:
        """Return whether ranges are to be recorded now."""
        return not self._sizes or num_samples >= 2 * self._sizes[-1][0]

    def record(self, num_samples: int, ranges: Mapping[str, Tuple[float, float]]) -> None:
        """Keep the ranges that so many samples gave."""
        self._sizes.append((num_samples, _sizes_of(ranges)))

    def points(self, num_samples: int, ranges: Mapping[str, Tuple[float, float]]) -> Tuple[CurvePoint, ...]:
        """Compare every record to the ranges of all samples; these are the last point, without a change."""
        final = _sizes_of(ranges)
        earlier = tuple(_compare(num, sizes, final) for num, sizes in self._sizes if num < num_samples)
        return (*earlier, CurvePoint(num_samples, 0.0, 0.0))


def find_enough(points: Sequence[CurvePoint], tolerance: float = TOLERANCE) -> Optional[int]:
    """Return the smallest number of samples from which on no range moved by more than `tolerance`.

    None where only all samples are: more may be needed.
    """
    enough = None
    for point in reversed(points[:-1]):
        if point.largest_change > tolerance:
            break
        enough = point.num_samples
    return enough


def _sizes_of(ranges: Mapping[str, Tuple[float, float]]) -> Dict[str, float]:
    return {name: max(abs(low), abs(high)) for name, (low, high) in ranges.items()}


def _compare(num_samples: int, sizes: Mapping[str, float], final: Mapping[str, float]) -> CurvePoint:
    """Compare to the final sizes; a tensor that had no range yet, or one where there is none, changed by all of it."""
    changes = [_change(sizes.get(name, 0.0), size) for name, size in final.items()] or [0.0]
    return CurvePoint(num_samples, max(changes), sum(changes) / len(changes))


def _change(size: float, final: float) -> float:
    return abs(size / final - 1) if final else float(size > 0)
