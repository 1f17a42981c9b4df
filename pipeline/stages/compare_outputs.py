"""Stage: how far a compiled model parts from a float one, output by output. A measurement: never cached."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from pipeline.artifacts import OutputParity
from pipeline.export.source import outputs_of
from pipeline.export.tapped import Evaluator, run_tapped
from pipeline.measuring.similarity import Similarity
from pipeline.tasks.feeds import Feeds
from targets.devices.device import Device
from targets.target import Arrays, RunOptions, Target

CHUNK_BYTES = 2**28
"""Of inputs and outputs that are in memory at once."""


@dataclass(frozen=True)
class Runnable:
    """An artifact on its device, and how it runs there."""

    artifact: Path
    target: Target
    device: Device
    options: RunOptions

    def outputs(self, feeds: Arrays) -> Arrays:
        """Return the outputs for every sample."""
        return self.device.infer(self.target, self.artifact, self.options, feeds)


def compare_outputs(
    float_model: onnx.ModelProto,
    forms: tuple[Runnable, ...],
    feeds: Feeds,
    evaluator: Evaluator,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[OutputParity, ...], ...]:
    """Compare every form of a model on its device with the float model as written, evaluated on the host.

    Args:
        float_model: the truth.
        forms: compiled from it, exact or quantized.
        feeds: samples.
        evaluator: evaluates ONNX as written.
        on_progress: called with samples evaluated and samples in all.

    Returns:
        For each form its outputs, in the float model's order.

    Raises:
        DeviceError, ModelRefused: a form cannot be run, or has outputs whose first axis is not the samples.
    """
    names = [spec.name for spec in outputs_of(float_model)]
    sums = [{name: _Sums() for name in names} for _ in forms]
    for inputs, expected in _chunks(float_model, names, feeds, evaluator, on_progress):
        for of_form, form in zip(sums, forms, strict=True):
            found = form.outputs(inputs)
            for name in names:
                of_form[name].add(expected[name], found[name])
    return tuple(tuple(each.result(name) for name, each in of_form.items()) for of_form in sums)


@dataclass
class _Sums:
    similarity: Similarity = field(default_factory=Similarity)
    num_equal_top: int = 0
    num_rows: int = 0
    num_samples: int = 0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        self.similarity.add(expected, found)
        self.num_samples += len(expected)
        if expected.ndim == 2 and expected.shape[1] > 1:
            self.num_equal_top += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
            self.num_rows += len(expected)

    def result(self, name: str) -> OutputParity:
        return OutputParity(
            name=name,
            snr_db=self.similarity.snr_db if np.isfinite(self.similarity.snr_db) else None,
            cosine=self.similarity.cosine,
            max_abs_diff=self.similarity.max_abs_diff,
            top1_agreement=self.num_equal_top / self.num_rows if self.num_rows else None,
            num_samples=self.num_samples,
        )


def _chunks(
    model: onnx.ModelProto,
    names: list[str],
    feeds: Feeds,
    evaluator: Evaluator,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield inputs and the outputs that they should give, as many samples at a time as fit into CHUNK_BYTES."""
    inputs: list[Arrays] = []
    outputs: list[Arrays] = []
    for index, expected in enumerate(run_tapped(evaluator, feeds)(model, names)):
        inputs.append(feeds.sample(index))
        outputs.append({name: array[:1].copy() for name, array in expected.items()})
        if on_progress:
            on_progress(index + 1, len(feeds))
        size = sum(array.nbytes for arrays in (inputs[-1], outputs[-1]) for array in arrays.values())
        if len(inputs) >= max(1, CHUNK_BYTES // max(1, size)) or index + 1 == len(feeds):
            yield _stacked(inputs), _stacked(outputs)
            inputs, outputs = [], []


def _stacked(samples: list[Arrays]) -> Arrays:
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
