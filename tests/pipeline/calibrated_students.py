"""Students on a grid by calibration alone, as checkpoints: what stages behind training need."""

from pathlib import Path

import torch

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint
from pipeline.models import AnyModel
from pipeline.models.trained import TrainedModel, save_weights
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.quantized_model import make_quantized


def calibrated_student(folder: Path, model: AnyModel, images_NCHW: torch.Tensor, num_classes: int) -> TrainedModel:
    """Return an untrained network whose ranges come from `images_NCHW`."""
    torch.manual_seed(0)
    _, channels, height, width = images_NCHW.shape
    network = make_quantized(model.build(channels, num_classes).eval(), Scheme())
    calibrate(network, lambda index: images_NCHW[index], len(images_NCHW), Calibration())
    path = folder / "student.safetensors"
    checkpoint = Checkpoint(
        path=path,
        sha256=save_weights(path, network),
        image_shape=(height, width, channels),
        classes=tuple(f"class {index}" for index in range(num_classes)),
        parameters=0,
        epochs=0,
        validation_accuracy=0.0,
        best_validation_accuracy=0.0,
    )
    return TrainedModel(model, checkpoint, Scheme())
