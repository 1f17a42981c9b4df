"""Stage: how far the device parts from the trained model, hop by hop, on the same inputs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifacts import CompiledModel, Hop, OnnxModel, Parity
from pipeline.models.trained import TrainedModel
from pipeline.tasks import AnyTask
from pipeline.training.evaluate import evaluate_logits
from pipeline.training.quantized_model import load_any
from targets.devices.device import Device
from targets.target import RunOptions, Target

PARITY_SAMPLES = 256


@dataclass(frozen=True)
class Runtime:
    """A target on a device, and how it runs models there."""

    target: Target
    device: Device
    options: RunOptions

    def logits(self, artifact: Path, name: str, images_NCHW: np.ndarray) -> np.ndarray:
        """Return the model's only output for normalized images."""
        outputs = self.device.infer(self.target, artifact, self.options, {name: images_NCHW})
        return next(iter(outputs.values()))


def check_parity(
    task: AnyTask,
    trained: TrainedModel,
    *,
    model: OnnxModel,
    compiled: CompiledModel,
    reference: Runtime,
    runtime: Runtime,
) -> Parity:
    """Compare torch in float32, ONNX as written, and the compiled artifact, on images of the validation cut.

    Args:
        task: gives images and normalization.
        trained: what was exported.
        model: its ONNX file.
        compiled: what runs on the device.
        reference: evaluates ONNX as written.
        runtime: runs the compiled artifact.

    Raises:
        DeviceError: a job failed.
    """
    cut = task.load().validation
    split = cut.take(np.arange(min(PARITY_SAMPLES, len(cut))))
    processing = task.normalization.processing()
    images = processing.preprocess(split.images)
    in_torch = evaluate_logits(load_any(trained), split, processing)
    in_onnx = reference.logits(model.path, model.input.name, images)
    on_device = runtime.logits(compiled.path, model.input.name, images)
    return Parity(torch_vs_onnx=compare(in_torch, in_onnx), onnx_vs_device=compare(in_onnx, on_device))


def compare(first_NK: np.ndarray, second_NK: np.ndarray) -> Hop:
    """Return the largest difference of any logit and the share of samples with the same largest logit."""
    return Hop(
        max_abs_diff=float(np.abs(first_NK - second_NK).max()),
        top1_agreement=float((first_NK.argmax(axis=1) == second_NK.argmax(axis=1)).mean()),
        num_samples=len(first_NK),
    )
