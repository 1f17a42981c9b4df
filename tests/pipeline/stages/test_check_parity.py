"""Parity: a hop that parts is looked into, and the tensor that is named is the one that is broken."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from calibrated_students import calibrated_student
from micro_nets import Net
from onnx import numpy_helper

from pipeline.artifacts import CompiledModel, Hop, OnnxModel, Parity
from pipeline.budget import ParityBudget
from pipeline.export.grids import Tap, diverge, find_taps
from pipeline.models.resnet import ResNet
from pipeline.models.trained import TrainedModel
from pipeline.stages.check_parity import (
    Runtime,
    answer_on_host,
    bisect_device,
    check_parity,
    choose_taps,
    is_apart,
)
from pipeline.stages.export_onnx import Export, export_onnx
from pipeline.tasks.classification import ClassificationTask, Normalization
from pipeline.tasks.digits import Digits
from targets import OnnxRuntime
from targets.devices.device import open_device
from targets.target import RunOptions

TASK = ClassificationTask(data=Digits(), normalization=Normalization(mean=(0.3,), std=(0.37,)))
BROKEN, BEHIND = "layer2.0.conv1", "quantize_layer2_0_relu1/QuantizeLinear"
TIGHT = ParityBudget(max_abs_diff=1e-6)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    images = TASK.normalization.processing().preprocess(TASK.load().validation.images[:64])
    return calibrated_student(
        tmp_path_factory.mktemp("student"), ResNet(depth=8, width=4), torch.from_numpy(images), 10
    )


@pytest.fixture
def model(student: TrainedModel, tmp_path: Path) -> OnnxModel:
    return export_onnx(tmp_path, student, Export(), encoding=OnnxRuntime.encoding, highest_opset=21)


@pytest.fixture
def host(tmp_path: Path) -> Runtime:
    pytest.importorskip("onnxruntime")
    target = OnnxRuntime(graph_optimization="none")
    return Runtime(target, open_device("local", tmp_path / "work"), RunOptions())


def compiled_from(model: OnnxModel) -> CompiledModel:
    return CompiledModel(model.path, model.sha256, model.size_bytes, "none", "1", "here", layers=())


def parity_of(student: TrainedModel, model: OnnxModel, host: Runtime) -> Parity:
    return check_parity(
        TASK,
        student,
        model=model,
        compiled=compiled_from(model),
        reference=host,
        runtime=host,
        answers=answer_on_host(TASK, student, model, host),
        budget=TIGHT,
    )


def double_scale_of_weights(path: Path, layer: str) -> None:
    proto = onnx.load(path)
    scale = next(tensor for tensor in proto.graph.initializer if tensor.name == f"{layer}.weight.scale")
    scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))
    onnx.save(proto, path)


def test_a_broken_scale_in_the_file_is_named(student: TrainedModel, model: OnnxModel, host: Runtime) -> None:
    double_scale_of_weights(model.path, BROKEN)
    parity = parity_of(student, model, host)
    (found,) = parity.bisections
    assert found.first is not None
    assert (found.hop, found.first.tensor) == ("torch to ONNX", BEHIND)
    assert found.first.lsb > 1.0
    assert found.num_tensors > 10


def test_forms_that_agree_are_not_blamed(student: TrainedModel, model: OnnxModel, host: Runtime) -> None:
    parity = parity_of(student, model, host)
    assert all(found.first is None for found in parity.bisections)  # the limit is beyond float rounding
    assert parity.onnx_vs_device.max_abs_diff == 0.0


def test_a_broken_scale_on_the_device_is_named(model: OnnxModel, host: Runtime) -> None:
    proto = onnx.load(model.path)
    images = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)
    taps, num_images = choose_taps(proto, len(images))
    right = host.tapped(proto, taps, model.input.name, images[:num_images])
    double_scale_of_weights(model.path, BROKEN)
    wrong = host.tapped(onnx.load(model.path), taps, model.input.name, images[:num_images])
    found = bisect_device([*taps, Tap("", model.output.name)], right, wrong)
    assert found is not None
    assert found.first is not None
    assert (found.hop, found.first.tensor, found.num_samples) == ("ONNX to device", BEHIND, 8)


def test_a_model_without_grids_is_compared_on_its_weighted_operators() -> None:
    net = Net("uint8")
    last = net.conv("image", weight=net.const(np.ones((16, 16, 3, 3), np.float32)))
    assert find_taps(net.model(net.add("Relu", last))) == (Tap(last.removesuffix(":0"), last),)


@pytest.mark.parametrize(
    ("hop", "budget", "expected"),
    [
        (Hop(9.0, 0.99, 100), None, False),
        (Hop(0.1, 0.97, 100), None, True),
        (Hop(0.1, 0.97, 100), ParityBudget(min_agreement=0.95), False),
        (Hop(0.3, 1.0, 100), ParityBudget(max_abs_diff=0.2), True),
        (Hop(float("nan"), 1.0, 100), None, True),
    ],
)
def test_a_hop_parts_beyond_its_budget_or_the_default(hop: Hop, budget: ParityBudget | None, expected: bool) -> None:
    assert is_apart(hop, budget) is expected


def test_a_difference_is_counted_in_steps_of_the_worst_channel() -> None:
    expected = np.zeros((2, 3, 4, 4))
    found = expected.copy()
    found[:, 1] = 0.3  # one channel of three, three steps off everywhere
    divergence = diverge("x", expected, found, 0.1)
    assert (divergence.lsb, divergence.max_abs_diff) == (pytest.approx(3.0), 0.3)
    found[0, 0, 0, 0] = np.nan
    assert diverge("x", expected, found, 0.1).lsb == float("inf")
