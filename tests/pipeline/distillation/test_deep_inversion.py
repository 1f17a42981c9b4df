"""DeepInversion: its terms against NumPy, what it makes of a small teacher, and that interrupting it costs nothing."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.artifacts import Checkpoint, SyntheticImages
from pipeline.distillation.deep_inversion import (
    DeepInversion,
    InversionLoss,
    jensen_shannon,
    norm_layers,
    reading_inputs,
    statistics_distance,
    total_variation,
)
from pipeline.errors import DataError, RecipeError, TrainingDiverged
from pipeline.models import AnyModel
from pipeline.models.resnet import ResNet
from pipeline.models.trained import TrainedModel, save_weights
from pipeline.stage_call import describe_call, installed_version
from pipeline.stages.synthesize_images import synthesize_images
from pipeline.tasks.classification import Normalization
from pipeline.tasks.dataset import Dataset
from pipeline.tasks.digits import Digits
from pipeline.tasks.synthetic import dataset_of

NORMALIZATION = Normalization(mean=(0.305,), std=(0.376,))
SYNTHESIS = DeepInversion(images=60, batch_size=30, steps=40, bn=0.1, jitter=0, flip=False)
"""bn below its default: 40 steps are few, and the teacher is shallow."""


def normals(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits().load()


def train(model: ResNet, digits: Dataset, folder: Path, epochs: int) -> TrainedModel:
    """Train on the digits by cross-entropy, without the product's loop, which is not what is tested."""
    torch.manual_seed(0)
    network = model.build(1, 10)
    images = torch.from_numpy(NORMALIZATION.processing().preprocess(digits.train.images))
    labels = torch.from_numpy(digits.train.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[index]), labels[index]).backward()
            optimizer.step()
    return kept(network.eval(), model, folder)


def kept(network: nn.Module, model: AnyModel, folder: Path) -> TrainedModel:
    path = folder / "model.safetensors"
    checkpoint = Checkpoint(path, save_weights(path, network), (8, 8, 1), tuple("0123456789"), 0, 1, 0.0, 0.0)
    return TrainedModel(model, checkpoint)


@pytest.fixture(scope="module")
def teacher(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return train(ResNet(depth=8, width=6), digits, tmp_path_factory.mktemp("teacher"), epochs=4)


@dataclass
class Listener:
    """Notes what a stage tells, and interrupts it as a user would, after so many steps."""

    interrupt_at: int = 0
    done: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __call__(self, done: int, total: int, metrics: Mapping[str, float] = {}, /) -> None:
        self.done.append(done)
        self.losses.append(metrics["loss"])
        if done == self.interrupt_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def synthetic(teacher: TrainedModel, listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> SyntheticImages:
    folder = tmp_path_factory.mktemp("synthetic")
    return synthesize_images(folder, NORMALIZATION, teacher, SYNTHESIS, on_progress=listener)


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4, 6)], ids=["vectors", "maps"])
def test_the_distance_of_statistics_is_that_of_numpy(shape: tuple[int, ...]) -> None:
    feature, mean, var = normals(0, *shape), normals(1, 3), normals(2, 3).abs()
    rows = np.moveaxis(feature.numpy(), 1, 0).reshape(3, -1)
    expected = math.dist(rows.mean(axis=1), mean) + math.dist(rows.var(axis=1), var)
    assert float(statistics_distance(feature, mean, var)) == pytest.approx(expected, rel=1e-12)
    own = statistics_distance(feature, torch.from_numpy(rows.mean(axis=1)), torch.from_numpy(rows.var(axis=1)))
    assert float(own) == pytest.approx(0, abs=1e-12)


def test_total_variation_is_that_of_numpy_and_a_flat_image_has_none_and_finite_gradients() -> None:
    images = normals(3, 2, 3, 4, 5)
    x = np.pad(images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    shifts = ((0, 1), (1, 0), (1, 1), (1, -1))
    expected = sum(math.sqrt(np.nansum((x - np.roll(x, shift, axis=(2, 3))) ** 2)) for shift in shifts)
    assert float(total_variation(images)) == pytest.approx(expected, rel=1e-12)
    flat = torch.ones(2, 3, 4, 5, requires_grad=True)
    of_flat = total_variation(flat)
    (gradient,) = torch.autograd.grad(of_flat, flat)
    assert of_flat.item() == 0
    assert bool(torch.isfinite(gradient).all())


def test_jensen_shannon_is_that_of_numpy_symmetric_zero_for_equals_and_at_most_log_2() -> None:
    first, second = 5 * normals(4, 6, 7), 5 * normals(5, 6, 7)
    p, q = (np.exp(z / 3) / np.exp(z / 3).sum(axis=1, keepdims=True) for z in (first.numpy(), second.numpy()))
    m = (p + q) / 2
    expected = ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / (2 * len(p))
    assert float(jensen_shannon(first, second, 3.0)) == pytest.approx(expected, rel=1e-12)
    assert float(jensen_shannon(second, first, 3.0)) == pytest.approx(expected, rel=1e-12)
    assert float(jensen_shannon(first, first, 3.0)) == pytest.approx(0, abs=1e-12)
    apart = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert float(jensen_shannon(*apart, 3.0)) == pytest.approx(math.log(2), rel=1e-6)


def test_every_call_of_a_norm_is_read_and_a_norm_that_is_never_called_is_not() -> None:
    network = nn.ModuleDict({"used": nn.BatchNorm2d(2), "spare": nn.BatchNorm2d(2), "plain": nn.Linear(2, 2)}).eval()
    layers = norm_layers(network)
    with reading_inputs(layers) as inputs:
        network["used"](network["used"](torch.ones(1, 2, 3, 3)))
    network["used"](torch.ones(1, 2, 3, 3))
    assert list(layers) == ["used", "spare"]
    assert [module for module, _ in inputs] == [network["used"], network["used"]]


def test_the_loss_falls_and_the_teacher_recognises_its_images(synthetic: SyntheticImages, listener: Listener) -> None:
    assert listener.done == list(range(1, 81))
    assert listener.losses[39] < 0.5 * listener.losses[0]
    assert synthetic.teacher_agreement > 0.6  # chance is 0.1
    assert synthetic.images_per_class == (6,) * 10
    tensors = safetensors.numpy.load_file(synthetic.path)
    assert (tensors["images"].dtype, tensors["images"].shape) == (np.uint8, (60, 8, 8, 1))
    assert tensors["images"].std() > 40


def test_an_interrupted_synthesis_goes_on_from_its_last_batch_to_the_same_bytes(
    teacher: TrainedModel, synthetic: SyntheticImages, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        synthesize_images(tmp_path, NORMALIZATION, teacher, SYNTHESIS, on_progress=Listener(interrupt_at=50))
    later = Listener()
    resumed = synthesize_images(tmp_path, NORMALIZATION, teacher, SYNTHESIS, on_progress=later)
    assert later.done[0] == 41
    assert resumed.path.read_bytes() == synthetic.path.read_bytes()
    assert resumed == replace(synthetic, path=resumed.path)
    assert [path.name for path in tmp_path.iterdir()] == ["images.safetensors"]


def test_a_damaged_batch_is_synthesized_again(
    teacher: TrainedModel, synthetic: SyntheticImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "batch_00000.safetensors").write_bytes(b"\0" * 100)
    again = synthesize_images(tmp_path, NORMALIZATION, teacher, SYNTHESIS)
    assert again.sha256 == synthetic.sha256
    assert "damaged batch" in caplog.text


def test_a_student_makes_images_on_which_it_disagrees(
    teacher: TrainedModel, digits: Dataset, synthetic: SyntheticImages, tmp_path: Path
) -> None:
    student = train(ResNet(depth=8, width=4), digits, tmp_path, epochs=2)
    hard = SYNTHESIS.model_copy(update={"adversarial": 10.0})
    competed = synthesize_images(tmp_path, NORMALIZATION, teacher, hard, student)

    def disagreement(images: SyntheticImages) -> float:
        pixels = safetensors.numpy.load_file(images.path)["images"]
        batch = torch.from_numpy(NORMALIZATION.processing().preprocess(pixels))
        with torch.no_grad():
            return float(jensen_shannon(teacher.load()(batch), student.load()(batch), 1.0))

    assert disagreement(competed) > 1.5 * disagreement(synthetic)


def test_synthesis_is_given_no_data(teacher: TrainedModel) -> None:
    call = describe_call(synthesize_images, (NORMALIZATION, teacher, SYNTHESIS), {}, installed_version)
    assert list(call.inputs) == ["normalization", "teacher", "synthesis", "student"]


def test_training_images_alone_are_replaced(digits: Dataset, synthetic: SyntheticImages) -> None:
    replaced = dataset_of(synthetic, digits)
    assert replaced.train.labels.tolist() == [label % 10 for label in range(60)]
    assert (replaced.validation, replaced.test, replaced.classes) == (digits.validation, digits.test, digits.classes)


def test_images_of_another_shape_are_refused(digits: Dataset, synthetic: SyntheticImages) -> None:
    with pytest.raises(DataError, match=r"expected synthesized images of the data's shape \(8, 8, 1\) and 10 classes"):
        dataset_of(replace(synthetic, image_shape=(4, 4, 1)), digits)


def test_a_teacher_without_statistics_is_refused_with_the_reason() -> None:
    with pytest.raises(RecipeError, match="expected a teacher with BatchNorm, whose running statistics say"):
        InversionLoss(SYNTHESIS, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def test_a_teacher_that_is_not_finite_stops_with_batch_step_and_term(teacher: TrainedModel, tmp_path: Path) -> None:
    network = teacher.load()
    nn.init.constant_(network.get_parameter("linear.bias"), math.nan)
    broken = kept(network, teacher.model, tmp_path)
    with pytest.raises(TrainingDiverged, match=r"batch 1, step 1: expected a finite loss; got one_hot = nan"):
        synthesize_images(tmp_path, NORMALIZATION, broken, SYNTHESIS)


def test_a_student_of_other_classes_is_refused(teacher: TrainedModel, tmp_path: Path) -> None:
    other = replace(teacher, checkpoint=replace(teacher.checkpoint, classes=("a", "b")))
    with pytest.raises(RecipeError, match=r"expected a student of the teacher's images \(8, 8, 1\) and 10 classes"):
        synthesize_images(tmp_path, NORMALIZATION, teacher, SYNTHESIS, other)


def test_labels_that_the_teacher_does_not_share_are_warned_of(
    teacher: TrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hurried = DeepInversion(images=5, steps=1, one_hot=0.0, flip=False)
    with caplog.at_level(logging.WARNING):
        synthesize_images(tmp_path, NORMALIZATION, teacher, hurried)
    assert "batches of 5 images miss some of the 10 classes" in caplog.text
    assert "of its images for the class asked for" in caplog.text
