"""A teacher on int8 codes says what it says in bfloat16, up to rounding; where it cannot, the recipe's author is told.

Bound: a code strays by up to half a 255th of its range, about 1 % of what a ReLU gives, and so does a weight. Over the
13 layers of this network 26 such errors add up as independent ones do, to about 5 %; 0.1 leaves room. What is lost, or
scaled wrongly, shows as an error of about 1.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts import Checkpoint
from pipeline.canonical import canonical, canonical_sha256
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.errors import RecipeError
from pipeline.models.resnet import ResNet
from pipeline.models.trained import TrainedModel
from pipeline.tasks.classification import ClassificationTask, Normalization, Views
from pipeline.tasks.digits import Digits
from pipeline.training.int8_teacher import Int8Convolution, TeacherPrecision, has_int8
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.student_run import Teaching, _key
from pipeline.training.teacher_outputs import Table, fast_inference, fast_teacher
from pipeline.training.views import ViewedImages

PRECISIONS: tuple[TeacherPrecision, ...] = ("bf16", "int8")
needs_int8 = pytest.mark.skipif(not has_int8(), reason="this machine has no int8 kernels (AVX-512 BF16, Linux, g++)")
CLOSE = 0.1
NUM_CONVOLUTIONS = 12
"""Those of the six blocks; the stem and what stands in a shortcut have no ReLU before or behind them."""


@pytest.fixture(params=["A", "B"], ids="shortcut {}".format)
def teacher(request: pytest.FixtureRequest) -> nn.Module:
    shortcut: Literal["A", "B"] = request.param
    torch.manual_seed(0)
    network = ResNet(depth=14, width=16, shortcut=shortcut).build(3, 10)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    with torch.no_grad():
        network.train()(images(1))
    return network.eval()


def images(seed: int) -> Tensor:
    """Return float32[48, 3, 12, 12] with a colour of their own each, so that logits differ."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randn(48, 3, 1, 1, generator=generator)
    return colours + 0.5 * torch.randn(48, 3, 12, 12, generator=generator)


def answers(network: nn.Module) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits, features = network(images(2).bfloat16())
    return logits, tuple(features)


def convolutions_of(network: nn.Module) -> list[Int8Convolution]:
    return [layer for layer in network.modules() if isinstance(layer, Int8Convolution)]


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return the error's norm, in that of what tells one image from another."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / (theirs - theirs.mean(0)).norm())


@needs_int8
def test_logits_are_close_to_those_in_bfloat16(teacher: nn.Module) -> None:
    int8 = fast_inference(teacher, calibration=iter([images(3)]))
    logits, _ = answers(int8)
    expected, _ = answers(fast_inference(teacher))
    assert len(convolutions_of(int8)) == NUM_CONVOLUTIONS
    assert relative_error(logits, expected) < CLOSE
    assert not torch.equal(logits, expected)


@needs_int8
def test_features_are_values_also_where_codes_would_flow(teacher: nn.Module) -> None:
    """What relu1 gives is read by one int8 convolution alone, unless it is asked for."""
    layers = ("layer1.0.relu1", "layer2.1.relu2", "layer3.1.relu2")
    int8 = fast_inference(teacher, layers, calibration=iter([images(3)]))
    assert len(convolutions_of(int8)) == NUM_CONVOLUTIONS
    logits, features = answers(int8)
    expected_logits, expected = answers(fast_inference(teacher, layers))
    assert relative_error(logits, expected_logits) < CLOSE
    for ours, theirs in zip(features, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative_error(ours, theirs) < CLOSE


@needs_int8
@pytest.mark.parametrize("teacher", ["A"], indirect=True)
def test_codes_flow_where_int8_convolutions_alone_read_them(teacher: nn.Module) -> None:
    """Both readers of a first block's end are of the second; a group's end is read by a shortcut or the pooling too."""
    int8 = fast_inference(teacher, calibration=iter([images(3)]))
    given: list[torch.dtype] = []
    for layer in convolutions_of(int8):
        layer.register_forward_hook(lambda layer, args, y: given.append(y.dtype))
    answers(int8)
    one_group = [torch.uint8, torch.uint8, torch.uint8, torch.bfloat16]
    assert given == one_group * 3


@needs_int8
def test_without_a_suitable_convolution_int8_is_refused() -> None:
    first_layer_alone = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 144, 10))
    with pytest.raises(RecipeError, match=r'teacher_precision: expected "bf16" for this teacher.*Leave it out'):
        fast_inference(first_layer_alone, calibration=iter([images(3)]))


class Looks(nn.Module):
    """A network that no graph stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.mean((2, 3))) if x.sum() > 0 else self.linear(x[:, :, 0, 0])
        return result


@needs_int8
def test_a_teacher_that_cannot_be_traced_is_refused_int8() -> None:
    with pytest.raises(RecipeError, match=r'teacher_precision: expected "bf16" for this teacher'):
        fast_inference(Looks(), calibration=iter([images(3)]))


REFUSED = """
import torch
from pipeline.errors import RecipeError
from pipeline.models.resnet import ResNet
from pipeline.training.teacher_outputs import fast_inference
try:
    fast_inference(ResNet(depth=8, width=16).build(3, 10), calibration=iter([torch.zeros(2, 3, 8, 8)]))
except RecipeError as error:
    print(error)
"""


def test_a_machine_without_kernels_refuses_int8() -> None:
    environment = {**os.environ, "EDGEPROOF_KERNELS": "off"}
    command = [sys.executable, "-c", REFUSED]
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    assert said.startswith('distillation.teacher_precision: expected "bf16" on this machine, since "int8" needs a')
    assert said.endswith('got "int8". Leave it out\n')


@needs_int8
@pytest.mark.parametrize("teacher", ["B"], indirect=True)
def test_a_teacher_in_int8_takes_its_ranges_from_the_images_that_it_is_asked_about(teacher: nn.Module) -> None:
    processing = Normalization(mean=(0.5,) * 3, std=(0.25,) * 3).processing()
    pixels = torch.randint(256, (300, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    viewed = ViewedImages(pixels, Views(), processing)
    shown = viewed.batch(torch.arange(48)).bfloat16()
    with torch.inference_mode():
        expected, logits = (fast_teacher(teacher, (), viewed, precision)(shown)[0] for precision in PRECISIONS)
    assert relative_error(logits, expected) < CLOSE


TASK = ClassificationTask(data=Digits(), normalization=Normalization(mean=(0.5,), std=(0.5,)), views=Views(in_use=2))
MODEL = ResNet(depth=8, width=16)
TRAINED = TrainedModel(MODEL, Checkpoint(Path("teacher.safetensors"), "ab" * 32, (8, 8, 1), ("0", "1"), 1, 1, 0.5, 0.5))


def test_what_a_teacher_says_in_int8_is_kept_apart_and_in_bfloat16_where_it_ever_was(tmp_path: Path) -> None:
    """A key of bfloat16 is spelled out as it was before there was int8: tables on disk go on counting."""
    viewed = ViewedImages(torch.zeros(2, 8, 8, 1, dtype=torch.uint8), Views(), TASK.normalization.processing())
    before = {
        "teacher": "ab" * 32,
        "model": canonical_sha256(canonical(MODEL, "model")),
        "images": hashlib.sha256(bytes(128)).hexdigest(),
        "normalization": canonical_sha256(canonical(TASK.normalization, "normalization")),
        "views": canonical_sha256(canonical(Views(), "views")),
        "precision": "bf16, BatchNorm folded, sums and ReLU fused, kept as fp16",
        "torch": torch.__version__,
    }
    keys = [_key(TASK, TRAINED, viewed, precision) for precision in PRECISIONS]
    assert keys[0] == before
    assert keys[1].pop("precision").startswith("int8, ")
    assert Table(tmp_path, keys[0]).folder != Table(tmp_path, keys[1]).folder


def test_a_teaching_in_bfloat16_counts_as_it_did_before_there_was_int8() -> None:
    losses, outputs = (KnowledgeDistillation(),), OutputsFolder(Path("outputs"))
    bf16, int8 = (
        canonical(Teaching((TRAINED,), losses, outputs, precision=precision), "teaching") for precision in PRECISIONS
    )
    assert isinstance(bf16, dict)
    assert set(bf16) == {"$class", "teachers", "losses", "outputs", "live"}
    assert int8 == {**bf16, "precision": "int8"}
