"""What range each tensor of a float ONNX model takes on samples, by one method or by several at once.

Rule: the model runs once, on the host, as written; what is not finite is named with its sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from calibration.cautions import describe_tensors
from calibration.outliers import TensorFacts, TensorStatistics
from calibration.ranges import CountedRange, Observer, start_all
from calibration.scheme import Scheme
from pipeline.artifacts import ObservedTensor, Ranges
from pipeline.errors import DataError
from pipeline.export.place_onnx import observed_tensors
from pipeline.export.tapped import Evaluator, Samples, run_tapped
from pipeline.progress import OnProgress, say_nothing

SAMPLES_FOR_STATISTICS = 16
"""Outliers show in a few samples, and gathering them costs as much as the ranges."""


@dataclass(frozen=True)
class ObservedRanges:
    """What was seen of every tensor, for one or more methods."""

    tensors: "tuple[_Observed, ...]"
    num_samples: int

    def ranges(self, place: int = 0) -> Ranges:
        """Return the ranges by one of the methods.

        Raises:
            DataError: a tensor has none by it.
        """
        facts = [tensor.describe(place) for tensor in self.tensors]
        return Ranges(tuple(map(_as_artifact, facts)), self.num_samples, tuple(describe_tensors(facts)))


def observe_by(
    prepared: onnx.ModelProto,
    samples: Samples,
    observers: Mapping[str, tuple[Observer, ...]],
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> ObservedRanges:
    """Run the float model on every sample and show each tensor to its observers.

    Args:
        prepared: from `prepare_onnx`.
        samples: to calibrate on.
        observers: of each tensor, by its name.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample.

    Raises:
        DataError: a tensor is not finite.
        ModelRefused: the evaluator refuses the model.
    """
    tensors = tuple(_Observed(name, each, TensorStatistics()) for name, each in observers.items())
    names = tuple(observers)
    for done, values in enumerate(run_tapped(evaluator, samples)(prepared, names), start=1):
        for tensor in tensors:
            tensor.observe(values[tensor.name], done)
        on_progress(done, len(samples))
    return ObservedRanges(tensors, len(samples))


def counting_observers(
    prepared: onnx.ModelProto, methods: Sequence[CountedRange], scheme: Scheme
) -> dict[str, tuple[Observer, ...]]:
    """Return observers for every tensor that a grid may be needed for; what they count is counted once."""
    codes, asymmetric = grid_of_scheme(scheme)
    names = observed_tensors(ir.from_proto(prepared).graph)
    return {name: start_all(methods, codes, asymmetric=asymmetric) for name in names}


def grid_of_scheme(scheme: Scheme) -> tuple[int, bool]:
    """Return how many codes above zero a tensor has that is never negative, and whether the others get a zero point."""
    return 255 if scheme.nonnegative == "uint8" else 127, scheme.signed != "symmetric"


@dataclass(frozen=True)
class _Observed:
    name: str
    observers: tuple[Observer, ...]
    statistics: TensorStatistics

    def observe(self, values: np.ndarray, sample: int) -> None:
        try:
            for observer in self.observers:
                observer.observe(values)
            if sample <= SAMPLES_FOR_STATISTICS:
                self.statistics.observe(values)
        except ValueError as error:
            raise DataError(
                f"calibration: tensor {self.name!r} of sample {sample}: {error}. Look at the samples, at what "
                "becomes of their pixels, and at the model's weights"
            ) from error

    def describe(self, place: int) -> TensorFacts:
        try:
            return self.statistics.describe(self.name, self.observers[place].range())
        except ValueError as error:
            raise DataError(f"calibration: tensor {self.name!r}: {error}") from error


def _as_artifact(facts: TensorFacts) -> ObservedTensor:
    low, high = facts.covered
    return ObservedTensor(
        name=facts.name,
        low=low,
        high=high,
        outlier_ratio=facts.outlier_ratio if math.isfinite(facts.outlier_ratio) else None,
        kurtosis=facts.kurtosis,
        clipped_share=facts.clipped_share,
        zero_channels=len(facts.zero_channels),
        num_channels=facts.num_channels,
        is_constant=facts.is_constant,
    )
