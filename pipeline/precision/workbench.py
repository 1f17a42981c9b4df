"""Plans as models on a device: built from one calibrated float file, timed in turns, judged on held-out samples."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.errors import RecipeError
from pipeline.export.tapped import Evaluator, Samples, find_evaluator, run_tapped
from pipeline.measuring.quantiles import percentile_of
from pipeline.measuring.similarity import Similarity
from pipeline.precision.build import build_plan, options_of_plan
from pipeline.precision.plan import Plan, Quality
from targets.devices.device import Device, Entrant, ProfileRequest
from targets.errors import ModelRefused
from targets.target import Arrays, RunOptions, Target

SECONDS_A_PLAN = 0.5
"""What one plan may take of a comparison, its warm-up included."""
NO_ERROR_DB, NO_SIGNAL_DB = -200.0, 100.0
"""Of outputs that are equal, which is below what float32 resolves; and of outputs that are not finite."""
LEAST_TO_ESTIMATE, MOST_TO_ESTIMATE = 4, 64
"""Samples of an estimate: as many as a second is enough for."""
ENOUGH_SAMPLES = 2_000
"""Inferences of a turn at most."""


@dataclass(frozen=True)
class Exam:
    """What plans are judged on: samples that no range came from, and what may be lost."""

    samples: Samples
    max_drop: float
    """Of accuracy, or of agreement with the float model where there are no labels; fraction."""
    labels: tuple[int, ...] | None = None
    """Of each sample, for logits [N, K]."""
    max_error_db: float | None = None
    """Error of the outputs over their mean square."""
    max_bytes: int | None = None
    """Of the file."""


@dataclass
class OnnxWorkbench:
    """Implements `search.Workbench`."""

    prepared: OnnxFile
    ranges: Ranges
    target: Target
    device: Device
    threads: int
    exam: Exam
    folder: Path
    """Where the files of the plans go."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of inputs whose dimensions the model leaves open."""
    scheme: Scheme | None = None
    """The grid; None: the one that the target's students are trained on."""
    evaluator: Evaluator = field(default_factory=find_evaluator)
    """What estimates are made by."""
    refusals: dict[Plan, str] = field(default_factory=dict)
    """Plans that cannot be built, or that the runtime does not run, with the reason."""
    _files: dict[Plan, Path] = field(default_factory=dict)
    _float_outputs: Arrays | None = None

    def build(self, plan: Plan) -> Path:
        """Return the ONNX file of a plan.

        Raises:
            RecipeError: the model cannot take that precision.
        """
        if plan not in self._files:
            folder = self.folder / f"plan_{len(self._files)}"
            self._files[plan] = build_plan(
                self.prepared, self.ranges, self.target, plan, folder, scheme=self.scheme or self.target.scheme
            ).path
        return self._files[plan]

    def options(self, plan: Plan) -> RunOptions:
        """Return how a plan runs."""
        return options_of_plan(plan, self.threads)

    def compare(self, plans: Sequence[Plan], rounds: int) -> list[list[float]]:
        """Return median latencies in ms by round; nothing for plans that cannot be built or that the runtime refuses.

        Raises:
            RecipeError: the first of them cannot be built.
            ModelRefused: the runtime refuses it.
        """
        built = [plan for plan in plans if self._can_build(plan, is_base=plan == plans[0])]
        entrants = [Entrant(self.build(plan), self.options(plan)) for plan in built]
        request = ProfileRequest(
            num_samples=ENOUGH_SAMPLES, max_seconds=SECONDS_A_PLAN * len(built), shapes=dict(self.shapes)
        )
        found: dict[Plan, list[float]] = {}
        for plan, turns in zip(built, self.device.compare(self.target, entrants, request, rounds=rounds), strict=True):
            if turns.refusal is not None and plan == plans[0]:
                raise ModelRefused(turns.refusal)  # what all others are compared with
            if turns.refusal is not None:
                self.refusals[plan] = turns.refusal
            found[plan] = [percentile_of(samples_ns, 50) / 1e6 for samples_ns in turns.samples_ns]
        return [found.get(plan, []) for plan in plans]

    def _can_build(self, plan: Plan, *, is_base: bool) -> bool:
        try:
            self.build(plan)
        except RecipeError as error:
            if is_base:
                raise
            self.refusals[plan] = str(error)
            return False
        return True

    def judge(self, plan: Plan) -> Quality:
        """Compare a plan's outputs with those of fp32 on all samples, both on the device."""
        return self._grade(plan, self._infer(Plan("fp32")), self._infer(plan), self.exam.labels)

    def estimate(self, plan: Plan) -> Quality:
        """Compare a few outputs as the reference evaluates them on the host, as written: no process is started."""
        expected, samples = self._float_estimate
        found = self._evaluate(self.build(plan), samples)
        return self._grade(plan, expected, found, self.exam.labels and self.exam.labels[: len(samples)])

    @property
    def num_estimated(self) -> int:
        """Samples of an estimate."""
        return len(self._float_estimate[1])

    def _grade(self, plan: Plan, expected: Arrays, found: Arrays, labels: tuple[int, ...] | None) -> Quality:
        similarity = Similarity()
        for name, values in expected.items():
            similarity.add(values, found[name])
        noise = similarity.noise
        error_db = max(-similarity.snr_db, NO_ERROR_DB) if math.isfinite(noise) else NO_SIGNAL_DB
        drop = _drop(expected, found, labels)
        size_bytes = self.build(plan).stat().st_size
        limits = (
            (drop, self.exam.max_drop),
            (error_db, self.exam.max_error_db),
            (size_bytes, self.exam.max_bytes),
        )
        holds = all(limit is None or value <= limit for value, limit in limits)
        return Quality(drop, min(error_db, NO_SIGNAL_DB), size_bytes, holds)

    def _infer(self, plan: Plan) -> Arrays:
        if plan.precision == "fp32" and self._float_outputs is not None:
            return self._float_outputs
        found = self.device.infer(self.target, self.build(plan), self.options(plan), self._feeds)
        if plan.precision == "fp32":
            self._float_outputs = found
        return found

    @cached_property
    def _feeds(self) -> Arrays:
        samples = [self.exam.samples.sample(index) for index in range(len(self.exam.samples))]
        return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}

    @cached_property
    def _float_estimate(self) -> tuple[Arrays, "_First"]:
        """Outputs of fp32 on as many samples as a second is enough for."""
        path = self.build(Plan("fp32"))
        start = time.monotonic()
        self._evaluate(path, _First(self.exam.samples, 1))
        seconds = max(time.monotonic() - start, 1e-6)
        most = min(MOST_TO_ESTIMATE, len(self.exam.samples), max(LEAST_TO_ESTIMATE, int(1 / seconds)))
        samples = _First(self.exam.samples, min(most, len(self.exam.samples)))
        return self._evaluate(path, samples), samples

    def _evaluate(self, path: Path, samples: "_First") -> Arrays:
        proto = onnx.load(str(path))
        names = [output.name for output in proto.graph.output]
        rows = [
            {name: values.copy() for name, values in outputs.items()}
            for outputs in run_tapped(self.evaluator, samples)(proto, names)
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in names}


@dataclass(frozen=True)
class _First:
    """The first of some samples."""

    samples: Samples
    num_samples: int

    def __len__(self) -> int:
        return self.num_samples

    def sample(self, index: int) -> Arrays:
        return self.samples.sample(index)


def _drop(expected: Arrays, found: Arrays, labels: tuple[int, ...] | None) -> float:
    """Return the accuracy that is lost; without labels, the share of rows whose largest value is another."""
    if labels is not None:
        right = [
            (next(iter(outputs.values())).argmax(axis=1) == np.array(labels)).mean() for outputs in (expected, found)
        ]
        return float(right[0] - right[1])
    rows = [name for name, values in expected.items() if values.ndim == 2 and values.shape[1] > 1]
    agreements = [(expected[name].argmax(axis=1) == found[name].argmax(axis=1)).mean() for name in rows]
    return float(1 - min(agreements, default=1.0))
