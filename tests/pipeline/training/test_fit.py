"""The one training loop: it resumes to the bit, stops on what is not finite, and trains what it says."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from calibration.scheme import Scheme
from pipeline.distillation import AnyLoss
from pipeline.distillation.contrastive import ContrastiveRepresentationDistillation
from pipeline.distillation.hints import SRD, FitNet
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.loss import Batch, Term
from pipeline.distillation.online import DeepMutualLearning
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.distillation.self_distillation import BeYourOwnTeacher
from pipeline.errors import DataError, RecipeError, TrainingDiverged
from pipeline.models.resnet import ResNet
from pipeline.models.trained import TrainedModel, read_state
from pipeline.stages.distill_student import distill_student
from pipeline.stages.train_quantized import train_quantized
from pipeline.stages.train_teacher import train_teacher
from pipeline.tasks.classification import ClassificationTask, Normalization, Views
from pipeline.tasks.dataset import Dataset, Split
from pipeline.training.calibrate import Calibration
from pipeline.training.evaluate import accuracy_of
from pipeline.training.fake_quantize import Scales
from pipeline.training.fit import FitResult, TrainingData, fit
from pipeline.training.objective import Objective, PlacedTerm
from pipeline.training.quantized_model import load_any
from pipeline.training.resume import RESUME_FILE
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.setup import make_optimizer
from pipeline.training.student_run import Teaching, save_checkpoint
from pipeline.training.teacher_outputs import OutputsFolder
from pipeline.training.views import ViewedImages, ViewSchedule
from pipeline.user_files import UserObject

MODEL = ResNet(depth=8, width=4)
SCHEDULE = TrainingSchedule(epochs=3, batch_size=8, learning_rate=0.05)
VIEWS = Views(padding=1, in_use=2)


def make_split(num: int, seed: int) -> Split:
    """Return images whose class shows: a bright row, column, diagonal or nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 4
    images = rng.integers(0, 60, (num, 8, 8, 2), dtype=np.uint8)
    images[labels == 0, 4] = 250
    images[labels == 1, :, 4] = 250
    images[(labels == 2)[:, None, None] & np.eye(8, dtype=bool)] = 250
    return Split(images, labels.astype(np.int64))


DATASET = Dataset(make_split(32, 0), make_split(16, 1), make_split(16, 2), ("row", "column", "diagonal", "none"))


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassificationTask:
    """A task over the user's own data: the arrays above, from a file."""
    monkeypatch.delenv("EDGEPROOF_DATA", raising=False)
    arrays = {
        f"{part}_{field}": getattr(getattr(DATASET, part), field)
        for part in ("train", "validation", "test")
        for field in ("images", "labels")
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    (tmp_path / "data.py").write_text(
        "import numpy as np\nfrom pipeline.tasks.dataset import Dataset, Split\n\n"
        "def load():\n"
        f"    with np.load({str(tmp_path / 'arrays.npz')!r}) as a:\n"
        "        parts = [Split(a[f'{p}_images'], a[f'{p}_labels']) for p in ('train', 'validation', 'test')]\n"
        "    return Dataset(*parts, ('row', 'column', 'diagonal', 'none'))\n"
    )
    data = UserObject.model_validate({"kind": "./data.py:load"}, context={"folder": tmp_path})
    return ClassificationTask(data=data, normalization=Normalization(mean=(0.2, 0.2), std=(0.3, 0.3)), views=VIEWS)


@pytest.fixture
def teacher(task: ClassificationTask, tmp_path: Path) -> TrainedModel:
    return TrainedModel(MODEL, train_teacher(make_folder(tmp_path / "teacher"), task, MODEL, SCHEDULE))


def make_folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


class Interruption:
    """Presses Ctrl-C after so many steps; counts those that it hears of."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.heard: list[int] = []

    def __call__(self, done: int, total: int, metrics: Mapping[str, float] | None = None, /) -> None:
        self.heard.append(done)
        if done == self.after:
            raise KeyboardInterrupt


def state_of(path: Path) -> dict[str, Tensor]:
    return read_state(path)


def assert_equal_to_the_bit(first: Path, second: Path) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "learning_rate": 0.01}, {"momentum": 0.0}], ids=str)
@pytest.mark.parametrize("after", [2, 6, 11])  # of 12 steps: in each of the three epochs
def test_an_interrupted_student_resumes_to_the_bit(
    task: ClassificationTask, teacher: TrainedModel, tmp_path: Path, after: int, changes: dict[str, object]
) -> None:
    schedule = SCHEDULE.model_copy(update=changes)
    losses = (CrossEntropy(weight=0.1), KnowledgeDistillation())
    teaching = Teaching((teacher,), losses, OutputsFolder(tmp_path / "outputs"))
    whole = distill_student(make_folder(tmp_path / "whole"), task, MODEL, schedule, teaching)
    folder = make_folder(tmp_path / "resumed")
    with pytest.raises(KeyboardInterrupt):
        distill_student(folder, task, MODEL, schedule, teaching, on_progress=Interruption(after))
    torch.manual_seed(12345)  # whatever happened in between
    rest = Interruption(-1)
    resumed = distill_student(folder, task, MODEL, schedule, teaching, on_progress=rest)
    assert_equal_to_the_bit(resumed.path, whole.path)
    assert (resumed.validation_accuracy, resumed.epochs) == (whole.validation_accuracy, 3)
    assert min(rest.heard) >= after // 4 * 4  # the epochs before are not trained again
    assert not (folder / RESUME_FILE).exists()


WITH_PARTS: dict[str, tuple[AnyLoss, ...]] = {
    "projectors": (CrossEntropy(), FitNet(), SRD()),
    "banks": (CrossEntropy(), ContrastiveRepresentationDistillation()),
    "a peer": (CrossEntropy(), DeepMutualLearning()),
    "exits": (CrossEntropy(), BeYourOwnTeacher()),
}


@pytest.mark.parametrize("losses", WITH_PARTS.values(), ids=WITH_PARTS)
def test_what_a_loss_trains_is_resumed_and_left_behind(
    task: ClassificationTask, teacher: TrainedModel, tmp_path: Path, losses: tuple[AnyLoss, ...]
) -> None:
    schedule = SCHEDULE.model_copy(update={"ema_decay": 0.9})
    teaching = Teaching((teacher,), losses, OutputsFolder(tmp_path / "outputs"))
    whole = distill_student(make_folder(tmp_path / "whole"), task, MODEL, schedule, teaching)
    folder = make_folder(tmp_path / "resumed")
    with pytest.raises(KeyboardInterrupt):
        distill_student(folder, task, MODEL, schedule, teaching, on_progress=Interruption(7))
    assert_equal_to_the_bit(distill_student(folder, task, MODEL, schedule, teaching).path, whole.path)
    assert state_of(whole.path).keys() == MODEL.build(2, 4).state_dict().keys()  # the student leaves alone


def test_ranges_move_whatever_else_is_read_of_the_student(
    task: ClassificationTask, teacher: TrainedModel, tmp_path: Path
) -> None:
    schedule = SCHEDULE.model_copy(update={"epochs": 2, "learning_rate": 0.01})

    def scales(epochs: int, losses: tuple[AnyLoss, ...]) -> list[Tensor]:
        folder = make_folder(tmp_path / f"{epochs}-{len(losses)}")
        path = train_quantized(
            folder,
            task,
            teacher,
            schedule.model_copy(update={"epochs": epochs}),
            Teaching((teacher,), losses, OutputsFolder(tmp_path / "outputs")),
            calibration=Calibration(samples=10),
            scheme=Scheme(),
        ).path
        return [value for name, value in sorted(state_of(path).items()) if name.endswith("scale")]

    calibrated = scales(0, ())
    trained = scales(2, (CrossEntropy(), SRD()))
    assert len(calibrated) > 5
    assert sum(not torch.equal(a, b) for a, b in zip(calibrated, trained, strict=True)) > len(calibrated) / 2


def test_a_student_with_one_layer_under_two_names_is_trained_and_resumed(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(128, 4)
            self.all = nn.Sequential(nn.Flatten(), self.first)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.all(x)
            return result

    assert train(Twice(), tmp_path, SCHEDULE, objective_of(cross_entropy=CrossEntropy())).epochs == 3
    again = train(Twice(), tmp_path, SCHEDULE, objective_of(x=lambda batch: pytest.fail("trained again")))
    assert again.epochs == 3


def test_an_auxiliary_output_in_training_is_refused(tmp_path: Path) -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(128, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.linear(x.flatten(1)), x

    with pytest.raises(RecipeError, match=r"Auxiliary: expected logits \[B, K\] in training .*; got a tuple"):
        train(Auxiliary(), tmp_path, SCHEDULE, objective_of(cross_entropy=CrossEntropy()))


def test_a_quantized_student_has_no_untrained_peer(
    task: ClassificationTask, teacher: TrainedModel, tmp_path: Path
) -> None:
    teaching = Teaching((teacher,), (DeepMutualLearning(),), OutputsFolder(tmp_path / "outputs"))
    folder = make_folder(tmp_path / "quantized")
    with pytest.raises(RecipeError, match=r"dml: expected a loss for a student that is trained already"):
        train_quantized(folder, task, teacher, SCHEDULE, teaching, calibration=Calibration(), scheme=Scheme())


def test_the_moving_average_is_what_ships(tmp_path: Path) -> None:
    """With a decay near zero it is the last weights; with one near 1 it hardly left the first."""

    def trained(decay: float | None) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4))
        schedule = SCHEDULE.model_copy(update={"ema_decay": decay})
        train(model, make_folder(tmp_path / str(decay)), schedule, objective_of(cross_entropy=CrossEntropy()))
        return model[1].weight.detach()

    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Linear(128, 4))[1].weight.detach()
    last = trained(None)
    assert (trained(1e-6) - last).norm() < 1e-3 * (last - first).norm()
    assert (trained(0.999) - first).norm() < 0.2 * (last - first).norm()


def test_a_checkpoint_says_what_it_came_from(task: ClassificationTask, teacher: TrainedModel, tmp_path: Path) -> None:
    teaching = Teaching((teacher,), (KnowledgeDistillation(),), OutputsFolder(tmp_path / "outputs"))
    schedule = SCHEDULE.model_copy(update={"epochs": 1, "seed": 7})
    path = distill_student(make_folder(tmp_path / "student"), task, MODEL, schedule, teaching).path
    with safe_open(path, framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    images = hashlib.sha256(np.ascontiguousarray(DATASET.train.images).tobytes()).hexdigest()
    assert (provenance["seed"], provenance["train_images"]) == ("7", images)
    assert provenance["teachers"] == teacher.checkpoint.sha256
    assert provenance["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("after", "scales"),  # of 16 steps; ranges move in the first two epochs of four
    [(1, "ema"), (5, "ema"), (14, "ema"), (5, "learned")],
)
def test_an_interrupted_quantized_student_resumes_to_the_bit(
    task: ClassificationTask, teacher: TrainedModel, tmp_path: Path, after: int, scales: Scales
) -> None:
    schedule = SCHEDULE.model_copy(update={"epochs": 4, "learning_rate": 0.01})
    teaching = Teaching((teacher,), (KnowledgeDistillation(temperature=1.0),), OutputsFolder(tmp_path / "outputs"))

    def train(name: str, interruption: Interruption) -> Path:
        folder = make_folder(tmp_path / name)
        return train_quantized(
            folder,
            task,
            teacher,
            schedule,
            teaching,
            calibration=Calibration(samples=10),
            scheme=Scheme(),
            scales=scales,
            on_progress=interruption,
        ).path

    whole = train("whole", Interruption(-1))
    with pytest.raises(KeyboardInterrupt):
        train("resumed", Interruption(after))
    assert_equal_to_the_bit(train("resumed", Interruption(-1)), whole)


def test_metrics_of_each_epoch_are_kept_and_the_last_and_best_reported(
    task: ClassificationTask, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "student")
    schedule = SCHEDULE.model_copy(update={"epochs": 6})
    checkpoint = distill_student(folder, task, MODEL, schedule, Teaching((), (CrossEntropy(),), OutputsFolder(folder)))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["validation_accuracy"] for line in lines]
    assert [line["epoch"] for line in lines] == list(range(6))
    assert checkpoint.validation_accuracy == accuracies[-1]
    assert checkpoint.best_validation_accuracy == max(accuracies)
    assert lines[-1]["cross_entropy"] < lines[0]["cross_entropy"]
    assert checkpoint.parameters == sum(p.numel() for p in MODEL.build(2, 4).parameters())


def small_data(num: int = 32) -> TrainingData:
    split = DATASET.train.take(np.arange(num))
    processing = Normalization(mean=(0.2, 0.2), std=(0.3, 0.3)).processing()
    images = ViewedImages(torch.from_numpy(split.images), VIEWS, processing)
    return TrainingData(images, torch.from_numpy(split.labels), ViewSchedule(VIEWS, num, 0))


def objective_of(**terms: Term) -> Objective:
    return Objective({name: PlacedTerm(CrossEntropy(), term) for name, term in terms.items()}, epochs=3)


def train(model: nn.Module, folder: Path, schedule: TrainingSchedule, objective: Objective, num: int = 32) -> FitResult:
    return fit(
        model, objective, small_data(num), schedule, name="distill_student", validate=lambda _: 0.5, out_dir=folder
    )


class Poisoned:
    """Cross-entropy that turns to NaN at one step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.calls = 0

    def __call__(self, batch: Batch) -> Tensor:
        self.calls += 1
        return CrossEntropy()(batch) * (float("nan") if self.calls == self.step else 0.5)


@pytest.mark.parametrize(
    ("step", "place", "kept"),
    [
        (3, "epoch 1, batch 3", "nothing was trained before it"),
        (7, "epoch 2, batch 3", "the state after epoch 1 is kept"),
    ],
)
def test_a_loss_that_is_nan_names_epoch_batch_and_term(tmp_path: Path, step: int, place: str, kept: str) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        train(MODEL.build(2, 4), tmp_path, SCHEDULE, objective_of(cross_entropy=CrossEntropy(), kd=Poisoned(step)))
    message = str(caught.value)
    assert message.startswith(f"distill_student: {place}: expected a finite loss; got kd = nan at learning rate ")
    assert kept in message
    assert (tmp_path / RESUME_FILE).exists() == (step > 4)


def test_weights_that_blow_up_in_the_last_step_are_not_kept(tmp_path: Path) -> None:
    class Exploding(Poisoned):
        def __call__(self, batch: Batch) -> Tensor:
            self.calls += 1
            root = (batch.student - batch.student.detach()).sum().abs().sqrt()  # zero, of infinite slope
            return CrossEntropy()(batch) + (root if self.calls == self.step else 0)

    with pytest.raises(TrainingDiverged, match=r"epoch 1, batch 4: .* weights that are not finite"):
        train(MODEL.build(2, 4), tmp_path, SCHEDULE, objective_of(cross_entropy=Exploding(4)))
    assert not (tmp_path / RESUME_FILE).exists()


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    objective = objective_of(cross_entropy=CrossEntropy())
    train(MODEL.build(2, 4), tmp_path, SCHEDULE, objective)
    path = tmp_path / RESUME_FILE
    for content in (b"", b"garbage", path.read_bytes()[:-50], path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"resume.safetensors: expected the state of an interrupted training; got"):
            train(MODEL.build(2, 4), tmp_path, SCHEDULE, objective)
    path.unlink()
    train(MODEL.build(2, 4), tmp_path, SCHEDULE, objective)
    with pytest.raises(DataError, match=r"Remove the file, and training begins again"):
        train(ResNet(depth=8, width=5).build(2, 4), tmp_path, SCHEDULE, objective)


@pytest.mark.parametrize(("num", "steps"), [(32, 4), (30, 3), (5, 1)])
def test_an_incomplete_batch_is_dropped_unless_it_is_the_only_one(tmp_path: Path, num: int, steps: int) -> None:
    sizes: list[int] = []

    def counted(batch: Batch) -> Tensor:
        sizes.append(len(batch.labels))
        return CrossEntropy()(batch)

    schedule = SCHEDULE.model_copy(update={"epochs": 1})
    train(MODEL.build(2, 4), tmp_path, schedule, objective_of(cross_entropy=counted), num)
    assert sizes == [min(8, num)] * steps


def test_a_model_given_in_eval_mode_is_trained_and_dropout_is_repeatable(tmp_path: Path) -> None:
    def final(name: str) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 4)).eval()
        torch.manual_seed(hash(name) % 1000)
        train(model, make_folder(tmp_path / name), SCHEDULE, objective_of(cross_entropy=CrossEntropy()))
        return model[2].weight.detach()

    assert torch.equal(final("first"), final("second"))


def test_decay_skips_what_has_one_dimension() -> None:
    model = MODEL.build(2, 4)
    decayed, plain = make_optimizer([model], SCHEDULE).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (5e-4, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_the_rate_warms_up_and_falls_to_zero_along_a_cosine() -> None:
    schedule = TrainingSchedule(epochs=10, learning_rate=0.2, warmup_epochs=2)
    rates = [schedule.rate(step, 10) for step in range(100)]
    np.testing.assert_allclose(rates[:20], 0.2 * np.arange(1, 21) / 21)
    np.testing.assert_allclose(rates[20:], [0.1 * (1 + math.cos(math.pi * i / 80)) for i in range(80)])
    assert schedule.rate(100, 10) == pytest.approx(0, abs=1e-12)
    assert max(rates) == rates[20] == 0.2


def test_a_gradient_is_clipped_to_its_norm(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4))
    before = model[1].weight.detach().clone()
    schedule = TrainingSchedule(
        epochs=1, batch_size=32, learning_rate=1.0, momentum=0.0, weight_decay=0.0, warmup_epochs=0, clip_norm=0.01
    )
    train(
        model,
        tmp_path,
        schedule,
        Objective({"cross_entropy": PlacedTerm(CrossEntropy(weight=100.0), CrossEntropy())}, epochs=1),
    )
    assert (model[1].weight.detach() - before).norm().item() <= 0.01 + 1e-6


@pytest.mark.parametrize("scales", ["ema", "learned"])
def test_a_student_trained_by_a_plan_loads_as_it_was_validated(
    task: ClassificationTask, teacher: TrainedModel, tmp_path: Path, scales: Scales
) -> None:
    checkpoint = train_quantized(
        make_folder(tmp_path / "quantized"),
        task,
        teacher,
        SCHEDULE.model_copy(update={"learning_rate": 0.01}),
        Teaching((teacher,), (CrossEntropy(),), OutputsFolder(tmp_path / "outputs")),
        calibration=Calibration(samples=10),
        scheme=Scheme(),
        scales=scales,
        float_layers=("layer3.0",),
    )
    loaded = load_any(TrainedModel(MODEL, checkpoint, Scheme(), ("layer3.0",)))
    accuracy = accuracy_of(loaded, task.load().validation, task.normalization.processing())
    assert accuracy == checkpoint.validation_accuracy
    assert not [name for name in loaded.state_dict() if name.startswith("layer3.0.conv1.parametrizations")]


def test_zero_epochs_only_calibrate(task: ClassificationTask, teacher: TrainedModel, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "quantized")
    teaching = Teaching((), (KnowledgeDistillation(),), OutputsFolder(folder))
    schedule = SCHEDULE.model_copy(update={"epochs": 0})
    calibration = Calibration(samples=16, choice="balanced")
    checkpoint = train_quantized(folder, task, teacher, schedule, teaching, calibration=calibration, scheme=Scheme())
    assert checkpoint.epochs == 0
    assert abs(checkpoint.validation_accuracy - teacher.checkpoint.validation_accuracy) <= 1 / 16
    assert list(folder.iterdir()) == [checkpoint.path]


def test_a_loss_that_wants_a_teacher_says_so(task: ClassificationTask, tmp_path: Path) -> None:
    teaching = Teaching((), (KnowledgeDistillation(),), OutputsFolder(tmp_path))
    with pytest.raises(RecipeError, match=r"losses: expected a teacher for a loss that reads its logits; got none"):
        distill_student(make_folder(tmp_path / "student"), task, MODEL, SCHEDULE, teaching)


def test_a_finished_training_whose_model_was_not_saved_is_not_trained_again(tmp_path: Path) -> None:
    objective = objective_of(cross_entropy=CrossEntropy())
    trained = MODEL.build(2, 4)
    train(trained, tmp_path, SCHEDULE, objective)
    again = MODEL.build(2, 4)
    result = train(again, tmp_path, SCHEDULE, objective_of(x=lambda batch: pytest.fail("trained again")))
    assert result == FitResult(3, 0.5, 0.5)
    assert torch.equal(again.linear.weight, trained.linear.weight)
    save_checkpoint(tmp_path, again, DATASET, result)
    assert not (tmp_path / RESUME_FILE).exists()
