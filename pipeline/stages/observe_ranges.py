"""Stage: calibration of any ONNX model: what range each of its tensors takes on samples of the user's."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from calibration.cautions import describe_tensors
from calibration.outliers import TensorFacts, TensorStatistics
from calibration.ranges import AnyRange, Observer
from calibration.scheme import Scheme
from pipeline.artifacts import ObservedTensor, OnnxFile, Ranges
from pipeline.errors import DataError
from pipeline.export.place_onnx import observed_tensors
from pipeline.export.tapped import Evaluator, run_tapped
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds

STAGE_VERSION = 1
TOOLCHAIN = ("numpy", "pillow", "onnx", "onnx-ir")

SAMPLES_FOR_STATISTICS = 16
"""Outliers show in a few samples, and gathering them costs as much as the ranges."""


def observe_ranges(
    out_dir: Path,
    prepared: OnnxFile,
    feeds: Feeds,
    method: AnyRange,
    scheme: Scheme,
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> Ranges:
    """Run the float model on every sample, on the host, and observe each tensor that a grid may be needed for.

    Args:
        out_dir: stays empty.
        prepared: from `prepare_onnx`.
        feeds: samples to calibrate on.
        method: how a range comes of values.
        scheme: the grid that ranges are for.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample.

    Raises:
        DataError: a tensor is not finite, or none went through it.
        RecipeError: nothing in the model can be quantized.
        ModelRefused: the evaluator refuses the model.
    """
    proto = onnx.load(str(prepared.path))
    names = observed_tensors(ir.from_proto(proto).graph)
    codes = 255 if scheme.nonnegative == "uint8" else 127
    asymmetric = scheme.signed != "symmetric"
    observed = {name: _Observed(name, method.start(codes, asymmetric=asymmetric), TensorStatistics()) for name in names}
    for done, tensors in enumerate(run_tapped(evaluator, feeds)(proto, names), start=1):
        for name, each in observed.items():
            each.observe(tensors[name], done)
        on_progress(done, len(feeds))
    facts = [each.describe() for each in observed.values()]
    return Ranges(tuple(map(_as_artifact, facts)), len(feeds), tuple(describe_tensors(facts)))


@dataclass(frozen=True)
class _Observed:
    name: str
    observer: Observer
    statistics: TensorStatistics

    def observe(self, values: np.ndarray, sample: int) -> None:
        try:
            self.observer.observe(values)
            if sample <= SAMPLES_FOR_STATISTICS:
                self.statistics.observe(values)
        except ValueError as error:
            raise DataError(
                f"calibration: tensor {self.name!r} of sample {sample}: {error}. Look at the samples, at what "
                "becomes of their pixels, and at the model's weights"
            ) from error

    def describe(self) -> TensorFacts:
        try:
            return self.statistics.describe(self.name, self.observer.range())
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
