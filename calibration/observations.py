"""Calibration of many tensors in one stream of batches: ranges, facts and the curve. NumPy, Python 3.8.

Rule: the one way from values to ranges; a training's modules and an ONNX model's tensors both feed it.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np

from calibration.curve import CurvePoint, RangeCurve
from calibration.outliers import TensorFacts, TensorStatistics, sort_worst_first
from calibration.ranges import AnyRange, Observer


class Observations:
    """What was seen of each tensor, by name; an observer starts when a name comes first."""

    def __init__(self, method: AnyRange, nonnegative_codes: int, *, with_facts: bool = True) -> None:
        """Without facts only ranges are kept, no facts and no curve, which is several times faster."""
        self._method = method
        self._nonnegative_codes = nonnegative_codes
        self._observers: Dict[str, Observer] = {}
        self._statistics: Dict[str, TensorStatistics] = {}
        self._with_facts = with_facts
        self._curve = RangeCurve()
        self._num_images = 0

    def observe(self, name: str, values: np.ndarray, channel_axis: int = 1) -> None:
        """Take in what a tensor held for one batch.

        Raises:
            ValueError: a value is not finite; names the tensor.
        """
        if name not in self._observers:
            self._observers[name] = self._method.start(self._nonnegative_codes)
        try:
            self._observers[name].observe(values)
            if self._with_facts:
                self._statistics.setdefault(name, TensorStatistics()).observe(values, channel_axis)
        except ValueError as error:
            raise ValueError("{}: {}".format(name, error)) from error

    def end_batch(self, num_images: int) -> None:
        """Count the images of a batch: what the curve is drawn over."""
        self._num_images += num_images
        if self._with_facts and self._curve.is_due(self._num_images):
            self._curve.record(self._num_images, self._ranges_so_far())

    def ranges(self) -> Dict[str, Tuple[float, float]]:
        """Return (low, high) of each tensor, in the order in which they came.

        Raises:
            ValueError: a tensor has none; names it.
        """
        return {name: self._range_of(name) for name in self._observers}

    def facts(self) -> List[TensorFacts]:
        """Return what is known of each tensor, the worst first; none where facts are not kept. Raises as `ranges`."""
        return sort_worst_first(seen.describe(name, self._range_of(name)) for name, seen in self._statistics.items())

    def curve(self) -> Tuple[CurvePoint, ...]:
        """Return how far ranges were, at each doubling of the images, from those of all. Raises as `ranges`."""
        return self._curve.points(self._num_images, self.ranges())

    def _range_of(self, name: str) -> Tuple[float, float]:
        try:
            return self._observers[name].range()
        except ValueError as error:
            raise ValueError("{}: {}".format(name, error)) from error

    def _ranges_so_far(self) -> Dict[str, Tuple[float, float]]:
        found = {}
        for name in self._observers:
            try:
                found[name] = self._range_of(name)
            except ValueError:
                continue  # it may have one when more samples have come
        return found
