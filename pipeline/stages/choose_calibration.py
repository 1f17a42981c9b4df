"""Stage: which calibration suits a model: ranges by several methods, judged on samples that none of them saw.

Rule: judged is the signal to noise ratio of the worst output; what users see is measured on others.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from calibration.ranges import CountedRange, MeanSquaredError, MinMax, Percentile
from calibration.scheme import Encoding, Scheme
from pipeline.artifacts import CalibrationChoice, OnnxFile, Ranges, TriedCalibration
from pipeline.errors import DataError
from pipeline.export.observe import ObservedRanges, counting_observers, observe_by
from pipeline.export.rewrite import rewrite
from pipeline.export.shifts import add_shifts
from pipeline.export.tapped import Evaluator, run_tapped
from pipeline.measuring.similarity import Similarity
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds
from targets.target import Arrays

STAGE_VERSION = 1
TOOLCHAIN = ("numpy", "pillow", "onnx", "onnx-ir")

METHODS: tuple[CountedRange, ...] = (MeanSquaredError(), MinMax(), Percentile(), Percentile(percentile=99.999))
"""Of equals the first wins. Entropy is left out: on detectors it lost 6 dB and more to each of these."""
JUDGED_SHARE, MOST_JUDGED = 5, 16
"""One sample in so many judges, and so many at most."""
EXACT_DB = 200.0
"""Stands for outputs that are equal."""


def choose_calibration(
    out_dir: Path,
    prepared: OnnxFile,
    equalized: OnnxFile,
    feeds: Feeds,
    scheme: Scheme,
    encoding: Encoding,
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> CalibrationChoice:
    """Try every method with equalised channels and corrected biases, then the best of them without either.

    Every fifth sample, evenly spread, judges; ranges come from the others. With fewer than five samples nothing is
    judged: the first method is taken, with both.

    Args:
        out_dir: stays empty.
        prepared: from `prepare_onnx`.
        equalized: the same, from `equalize_onnx`.
        feeds: samples to calibrate on.
        scheme: the grid.
        encoding: the form of Q/DQ that the target fuses: it decides which tensors are rounded.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample that is observed, and of each try.

    Raises:
        DataError: a tensor is not finite, or none went through it.
        RecipeError: nothing in the model can be quantized.
        ModelRefused: the evaluator refuses the model.
    """
    held = tuple(range(len(feeds)))[JUDGED_SHARE - 1 :: JUDGED_SHARE][:MOST_JUDGED]
    observed = feeds.take([index for index in range(len(feeds)) if index not in held])
    bench = _Bench(feeds.take(held), observed, scheme, encoding, evaluator)
    num_steps = len(observed) + len(METHODS) + 3
    even = bench.observe(equalized, METHODS, lambda done, *_: on_progress(done, num_steps))
    tries = bench.tries(even, equalized, METHODS, is_equalized=True)
    best = next(tries)
    for done, tried in enumerate(tries if held else (), start=len(observed) + 2):
        on_progress(done, num_steps)
        best = max(best, tried, key=lambda each: each.snr_db)
    if held:
        best = max(best, *bench.without(best, prepared, equalized), key=lambda each: each.snr_db)
    on_progress(num_steps, num_steps)
    all_tried = tuple(TriedCalibration(*_facts(each)) for each in bench.tried)
    return CalibrationChoice(best.ranges, *_facts(best), all_tried if held else (), len(held))


@dataclass(frozen=True)
class _Try:
    """One calibration, judged."""

    method: CountedRange
    ranges: Ranges
    is_equalized: bool
    snr_db: float


@dataclass
class _Bench:
    """Makes calibrations and judges them."""

    judging: Feeds
    observing: Feeds
    scheme: Scheme
    encoding: Encoding
    evaluator: Evaluator
    tried: list[_Try] = field(default_factory=list)
    _expected: list[Arrays] = field(default_factory=list)

    def observe(
        self, model: OnnxFile, methods: tuple[CountedRange, ...], on_progress: OnProgress = say_nothing
    ) -> ObservedRanges:
        """Observe a model's tensors for all methods at once."""
        proto = onnx.load(str(model.path))
        observers = counting_observers(proto, methods, self.scheme)
        return observe_by(proto, self.observing, observers, self.evaluator, on_progress=on_progress)

    def tries(
        self, observed: ObservedRanges, model: OnnxFile, methods: tuple[CountedRange, ...], *, is_equalized: bool
    ) -> Iterator[_Try]:
        """Judge each method with corrected biases; one that cuts a tensor to nothing is passed over, but for one."""
        for place, method in enumerate(methods):
            try:
                ranges = observed.ranges(place)
            except DataError:
                if place == len(methods) - 1 and not self.tried:
                    raise
                continue
            shifted = add_shifts(onnx.load(str(model.path)), self.observing, ranges, self.scheme, self.evaluator)
            yield self.judge(_Try(method, shifted, is_equalized, EXACT_DB), model)

    def without(self, best: _Try, prepared: OnnxFile, equalized: OnnxFile) -> Iterator[_Try]:
        """Judge the best method without corrected biases, without equalised channels, and without both."""
        if best.ranges.bias_shifts:
            yield self.judge(replace(best, ranges=replace(best.ranges, bias_shifts=())), equalized)
        if prepared.sha256 != equalized.sha256:
            plain = self.observe(prepared, (best.method,))
            for tried in self.tries(plain, prepared, (best.method,), is_equalized=False):
                yield tried
                if tried.ranges.bias_shifts:
                    yield self.judge(replace(tried, ranges=replace(tried.ranges, bias_shifts=())), prepared)

    def judge(self, tried: _Try, model: OnnxFile) -> _Try:
        """Return a calibration with the signal to noise ratio of its worst output."""
        proto = onnx.load(str(model.path))
        names = [output.name for output in proto.graph.output]
        self._expected = self._expected or self._infer(proto, names)
        quantized = ir.from_proto(proto)
        opset = quantized.opset_imports[""]
        rewrite(quantized, "int8", ranges=tried.ranges, scheme=self.scheme, encoding=self.encoding, highest_opset=opset)
        similarities = {name: Similarity() for name in names}
        for expected, found in zip(self._expected, self._infer(ir.to_proto(quantized), names), strict=True):
            for name, similarity in similarities.items():
                similarity.add(expected[name], found[name])
        are_finite = all(math.isfinite(similarity.noise) for similarity in similarities.values())
        worst = min(similarity.snr_db for similarity in similarities.values()) if are_finite else -EXACT_DB
        judged = replace(tried, snr_db=min(max(worst, -EXACT_DB), EXACT_DB))
        self.tried.append(judged)
        return judged

    def _infer(self, model: onnx.ModelProto, names: list[str]) -> list[Arrays]:
        outputs = run_tapped(self.evaluator, self.judging)(model, names)
        return [{name: values.copy() for name, values in each.items()} for each in outputs]


def _facts(tried: _Try) -> tuple[str, bool, bool, float]:
    """Return method, whether channels were equalised, whether biases were corrected, and the ratio."""
    method = tried.method
    words = f"{method.kind} {method.percentile:g}" if isinstance(method, Percentile) else method.kind
    return words, tried.is_equalized, bool(tried.ranges.bias_shifts), tried.snr_db
