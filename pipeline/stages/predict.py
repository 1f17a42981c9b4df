"""Stage: a torch model's logits of the test images, in float32 on the host; the gate compares the device with them."""

import hashlib
from pathlib import Path

import safetensors.numpy

from pipeline.artifacts import Predictions
from pipeline.models.trained import TrainedModel
from pipeline.tasks import AnyTask
from pipeline.training.evaluate import evaluate_logits
from pipeline.training.quantized_model import load_any

STAGE_VERSION = 2
TOOLCHAIN = ("torch", "numpy")


def predict(out_dir: Path, task: AnyTask, trained: TrainedModel) -> Predictions:
    """Return the logits of every test image."""
    dataset = task.load()
    logits = evaluate_logits(load_any(trained), dataset.test, task.normalization.processing())
    path = out_dir / "logits.safetensors"
    safetensors.numpy.save_file({"logits": logits}, path)
    return Predictions(path, hashlib.sha256(path.read_bytes()).hexdigest())
