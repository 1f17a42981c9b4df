"""One trained grid, written for two runtimes and run by both on real images, is one model."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint
from pipeline.models.resnet import ResNet
from pipeline.models.trained import TrainedModel, load_weights, read_state, save_weights
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.tasks.cifar10 import Cifar10
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.quantized_model import make_quantized
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino
from targets.processing import Processing
from targets.target import RunOptions, Target

MODEL = ResNet(depth=20, width=16, shortcut="A")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROCESSING = Processing(
    scale=tuple(1 / (255 * std) for std in STD), bias=tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True))
)


def calibrated(folder: Path, weights: Path, images_NHWC: np.ndarray) -> TrainedModel:
    network = MODEL.build(3, 10)
    load_weights(network, read_state(weights), where=str(weights))
    quantized = make_quantized(network.eval(), Scheme())
    images_NCHW = torch.from_numpy(PROCESSING.preprocess(images_NHWC))
    calibrate(quantized, lambda index: images_NCHW[index], len(images_NCHW), Calibration())
    path = folder / "student.safetensors"
    classes = tuple(str(label) for label in range(10))
    checkpoint = Checkpoint(path, save_weights(path, quantized), (32, 32, 3), classes, 0, 0, 0.0, 0.0)
    return TrainedModel(MODEL, checkpoint, Scheme())


def predict(trained: TrainedModel, encoded_for: Target, runtime: Target, images_NHWC: np.ndarray) -> np.ndarray:
    """Return the labels that a runtime gives with the file in some target's encoding."""
    with tempfile.TemporaryDirectory() as folder:
        encoding, opset = encoded_for.encoding, encoded_for.highest_opset
        model = export_onnx(Path(folder), trained, Export(batch="dynamic"), encoding=encoding, highest_opset=opset)
        session = runtime.open(model.path, RunOptions())
        feeds = (PROCESSING.preprocess(images_NHWC[start : start + 100]) for start in range(0, len(images_NHWC), 100))
        return np.concatenate([session.bind({"image": each})()["logits"].argmax(1) for each in feeds])


@pytest.mark.slow
def test_two_encodings_of_one_grid_give_the_same_labels(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    data = Cifar10(folder=str(shared_data / "cifar10")).load()
    weights = shared_data / "teachers" / "derived" / "resnet20_ft_jpeg.pt"
    trained = calibrated(tmp_path, weights, data.train.images[::100])
    one, other = OnnxRuntime(), OpenVino()
    images, truth = data.test.images, data.test.labels
    as_written = OnnxRuntime(graph_optimization="none")  # slow: every fifth image
    written = [predict(trained, each, as_written, images[::5]) for each in (one, other)]
    assert (written[0] == written[1]).mean() >= 0.998
    shipped = [predict(trained, each, each, images) for each in (one, other)]
    accuracies = [float((labels == truth).mean()) for labels in shipped]
    assert abs(accuracies[0] - accuracies[1]) <= 0.001
    assert min(accuracies) > 0.86  # of the float network's 0.8749: the comparison is of models that work
    assert (shipped[0] == shipped[1]).mean() >= 0.998
