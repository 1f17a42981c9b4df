"""The export stage: one file with known names and shapes, the same for the same checkpoint, and right on images."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_networks import CLASSES, IMAGE, make_images

from calibration.scheme import Encoding, Scheme
from pipeline.artifacts import Checkpoint
from pipeline.models.resnet import ResNet
from pipeline.models.trained import TrainedModel, save_weights
from pipeline.on_device import opset_note
from pipeline.stages.check_parity import compare
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.quantized_model import load_any, make_quantized
from targets.null import Null
from targets.processing import Processing
from targets.runner.inference import bind_for_scope, infer_samples
from targets.runner.job import ProfileRequest
from targets.target import RunOptions, TensorSpec
from targets.tensorrt import TensorRt

MODEL = ResNet(depth=8, width=4)
IMAGES = make_images(32)
PROCESSING = Processing(scale=(1 / 60, 1 / 61, 1 / 62, 1 / 63), bias=(-2.0, -2.1, -1.9, -2.2))


@pytest.fixture(params=[None, Scheme()], ids=["fp32", "int8"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> TrainedModel:
    """An untrained network as a checkpoint: float, or calibrated on the grid of `scheme`."""
    torch.manual_seed(0)
    network = MODEL.build(IMAGE[0], CLASSES).eval()
    if request.param is not None:
        network = make_quantized(network, request.param)
        calibrate(network, lambda index: IMAGES[index], len(IMAGES), Calibration())
    path = tmp_path / "model.safetensors"
    channels, height, width = IMAGE
    checkpoint = Checkpoint(
        path, save_weights(path, network), (height, width, channels), tuple("abcde"), 0, 0, validation_accuracy=0.0,
        best_validation_accuracy=0.0,
    )  # fmt: skip
    return TrainedModel(MODEL, checkpoint, request.param)


CASES_OF_OPSETS = [
    (21, 17, 17),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [(21, 21, 21), (21, 19, 19), (18, 21, 18)]),
]


def encoding_of(trained: TrainedModel) -> Encoding | None:
    return None if trained.scheme is None else Null.encoding


@pytest.mark.parametrize("batch", ["static", "dynamic"])
def test_the_file_computes_what_the_checkpoint_does(trained: TrainedModel, tmp_path: Path, batch: str) -> None:
    model = export_onnx(tmp_path, trained, Export(batch=batch), encoding=encoding_of(trained), highest_opset=21)
    size = 1 if batch == "static" else None
    session = Null().open(model.path, RunOptions())
    assert (model.input, model.output) == (session.inputs[0], session.outputs[0])
    assert (model.input.name, model.input.shape) == ("image", (size, *IMAGE))
    assert (model.output.name, model.output.shape) == ("logits", (size, CLASSES))
    feeds = IMAGES[:1] if size else IMAGES
    expected = load_any(trained)(feeds).detach().numpy()
    got = session.bind({"image": feeds.numpy()})()["logits"]
    assert np.abs(got - expected).max() < (1e-5 if trained.scheme is None else 0.05 * expected.std() + 1e-3)
    assert model.precision == ("fp32" if trained.scheme is None else "int8")


def test_a_model_that_takes_bytes_is_fed_bytes_and_gives_the_logits_of_floats(
    trained: TrainedModel, tmp_path: Path
) -> None:
    export = Export(input="uint8_nhwc")
    model = export_onnx(
        tmp_path, trained, export, encoding=encoding_of(trained), highest_opset=21, processing=PROCESSING
    )
    session = Null().open(model.path, RunOptions())
    assert model.input == session.inputs[0] == TensorSpec("image", "uint8", (1, *IMAGE[1:], IMAGE[0]))
    images = np.random.default_rng(2).integers(0, 256, (3, *IMAGE[1:], IMAGE[0]), dtype=np.uint8)
    fed = PROCESSING.fed_to(model.input)
    got = infer_samples(session, {"image": images}, fed)["logits"]
    expected = load_any(trained)(torch.from_numpy(PROCESSING.preprocess(images))).detach().numpy()
    assert np.abs(got - expected).max() < (1e-5 if trained.scheme is None else 0.05 * expected.std() + 1e-3)
    labels, _ = bind_for_scope(session, ProfileRequest("end_to_end", 1, 1.0, processing=fed))()
    assert labels.shape == (1,)


@pytest.mark.parametrize(("asked", "highest", "written"), CASES_OF_OPSETS)
def test_the_opset_is_the_highest_that_the_target_reads(
    trained: TrainedModel, tmp_path: Path, asked: int, highest: int, written: int
) -> None:
    model = export_onnx(tmp_path, trained, Export(opset=asked), encoding=encoding_of(trained), highest_opset=highest)
    proto = onnx.load(model.path)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", written)]
    assert model.opset == written
    assert proto.graph.input[0].name == "image"
    assert "GlobalAveragePool" in {node.op_type for node in proto.graph.node}


def test_a_lowered_opset_is_said() -> None:
    assert opset_note(21, TensorRt()) == "; it reads ONNX up to opset 17, to which 21 is lowered"
    assert opset_note(17, TensorRt()) == ""


def test_two_exports_of_one_checkpoint_are_the_same_bytes(trained: TrainedModel, tmp_path: Path) -> None:
    digests = set()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        model = export_onnx(tmp_path / name, trained, Export(), encoding=encoding_of(trained), highest_opset=21)
        assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
        assert model.size_bytes == model.path.stat().st_size
        digests.add(model.sha256)
    assert len(digests) == 1


def test_parity_is_the_largest_difference_and_the_share_of_equal_winners() -> None:
    first = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    second = np.array([[1.0, 2.5], [0.0, 0.5], [0.0, 1.0], [5.0, 4.0]])
    hop = compare(first, second)
    assert (hop.max_abs_diff, hop.top1_agreement, hop.num_samples) == (3.0, 0.75, 4)
