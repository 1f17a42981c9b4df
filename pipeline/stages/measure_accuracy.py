"""Stage: accuracy on the device, from the compiled artifact, over the whole test set. A measurement: never cached."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

from pipeline.artifacts import Accuracy, CompiledModel, OnnxModel, Predictions
from pipeline.tasks import AnyTask
from targets.devices.device import Device
from targets.target import RunOptions, Target


@dataclass(frozen=True)
class ChainPredictions:
    """What the models before the device said of the same test images."""

    teacher: Predictions
    student: Predictions
    quantized: Predictions | None
    """None where the float student ships."""


def measure_accuracy(
    task: AnyTask,
    compiled: CompiledModel,
    predictions: ChainPredictions,
    *,
    model: OnnxModel,
    target: Target,
    device: Device,
    options: RunOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Run every test image through the compiled artifact: the device gets bytes and pre-processes them as in the field.

    Raises:
        DeviceError: the job failed.
    """
    test = task.load().test
    processing = task.normalization.processing().fed_to(model.input)
    outputs = device.infer(
        target,
        compiled.path,
        options,
        {model.input.name: test.images},
        processing=processing,
        on_progress=on_progress,
    )

    def correct(predicted: Predictions) -> np.ndarray:
        return task.correct(safetensors.numpy.load_file(predicted.path)["logits"], test.labels)

    student = correct(predictions.student)
    return Accuracy(
        metric="top-1",
        teacher=correct(predictions.teacher),
        student=student,
        quantized=correct(predictions.quantized) if predictions.quantized else student,
        on_device=task.correct(outputs[model.output.name], test.labels),
    )
