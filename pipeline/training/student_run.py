"""What float and quantized students share: data in views, the teacher's outputs beside them, one fit."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint
from pipeline.canonical import OMITTED_WHEN_DEFAULT, canonical, canonical_sha256
from pipeline.distillation import AnyLoss
from pipeline.errors import RecipeError
from pipeline.models import AnyModel, build_model
from pipeline.models.trained import TrainedModel, save_weights
from pipeline.progress import OnProgress
from pipeline.tasks import AnyTask
from pipeline.tasks.dataset import Dataset
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.evaluate import accuracy_of
from pipeline.training.fit import FitResult, OnMetrics, TrainingData, fit
from pipeline.training.int8_teacher import TeacherPrecision
from pipeline.training.kernels.library import kernels_in_use
from pipeline.training.objective import Networks, Objective, build_objective
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.quantized_model import make_quantized
from pipeline.training.resume import RESUME_FILE
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.teacher_outputs import TeacherOutputs
from pipeline.training.teachers import LiveTeachers, StoredTeachers, TeacherSource
from pipeline.training.views import ViewedImages, ViewSchedule


@dataclass(frozen=True)
class Teaching:
    """Who teaches, by which losses, and where what they said is kept."""

    teachers: tuple[TrainedModel, ...]
    losses: tuple[AnyLoss, ...]
    outputs: OutputsFolder
    live: bool = False
    """Ask the teachers at every step instead of keeping what they said."""
    precision: TeacherPrecision = field(default="bf16", metadata=OMITTED_WHEN_DEFAULT)
    """What they compute in."""


def build_network(model: AnyModel, dataset: Dataset) -> nn.Module:
    """Return the untrained network of a recipe, after one image of the data's shape went through it.

    Raises:
        RecipeError: the user's own model cannot be built, refuses the image, or gives no logits float[1, num_classes].
    """
    height, width, channels = dataset.train.images.shape[1:]
    network = build_model(model, channels, len(dataset.classes))
    was_training = network.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network.eval()(torch.zeros(1, channels, height, width))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(
            f"{model.kind}: expected a model that takes images float32[1, {channels}, {height}, {width}]; got {reason}"
        ) from error
    expected = (1, len(dataset.classes))
    got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != expected:
        raise RecipeError(
            f"{model.kind}: expected logits of shape {expected}, one a class of the data; got {got}. "
            "Give the model as many outputs as task.data has classes"
        )
    return network.train(was_training)


def build_calibrated(
    student: TrainedModel,
    task: AnyTask,
    dataset: Dataset,
    calibration: Calibration,
    scheme: Scheme,
    float_layers: tuple[str, ...] = (),
) -> fx.GraphModule:
    """Return a float student on a grid: BatchNorm folded, ranges from the validation cut. Raises as both do."""
    network = make_quantized(student.load(), scheme, frozenset(float_layers))
    images = ViewedImages(torch.from_numpy(dataset.validation.images), task.views, task.normalization.processing())
    calibrate(network, images.batch, len(images), calibration, dataset.validation.labels)
    return network


def train_from_nothing(
    out_dir: Path,
    task: AnyTask,
    model: AnyModel,
    training: TrainingSchedule,
    teaching: Teaching,
    *,
    whole: Dataset,
    name: str,
    on_progress: OnProgress,
    on_metrics: OnMetrics,
) -> Checkpoint:
    """Build `model` for what the student sees of `whole`, train it and keep it. Raises as its parts do."""
    own = task.for_student().load()
    torch.manual_seed(training.seed)
    network = build_network(model, own)
    result = run_training(
        network,
        task,
        whole,
        training,
        teaching,
        kind=model.kind,
        new_student=lambda: build_network(model, own),
        name=name,
        out_dir=out_dir,
        on_progress=on_progress,
        on_metrics=on_metrics,
    )
    return save_checkpoint(out_dir, network, own, result, schedule=training, teaching=teaching)


def run_training(
    model: nn.Module,
    task: AnyTask,
    dataset: Dataset,
    schedule: TrainingSchedule,
    teaching: Teaching,
    *,
    kind: str,
    new_student: Callable[[], nn.Module],
    name: str,
    out_dir: Path,
    on_progress: OnProgress,
    on_metrics: OnMetrics,
    on_epoch: Callable[[nn.Module, int], None] = lambda model, epoch: None,
) -> FitResult:
    """Train `model`, a network of `kind`, on the views of the task, taught by `teaching`.

    Raises:
        RecipeError: a loss wants a teacher and there is none, or does not fit the networks.
        TrainingDiverged: as `fit`.
    """
    images, seen = viewed(dataset.train.images, task)
    views = ViewSchedule(task.views, len(images), task.views.seed)
    teachers = tuple(teacher.load() for teacher in teaching.teachers) if schedule.epochs else ()
    _require_same_classes(teaching.teachers)
    networks = Networks(
        student=model,
        student_example=seen.batch(torch.tensor([0])),
        teachers=teachers,
        teacher_example=images.batch(torch.tensor([0])),
        labels=torch.from_numpy(dataset.train.labels),
        num_classes=len(dataset.classes),
        num_teacher_classes=len(teaching.teachers[0].checkpoint.classes) if teachers else len(dataset.classes),
        new_student=new_student,
        same_architecture=bool(teachers) and teaching.teachers[0].model.kind == kind,
    )
    torch.manual_seed(schedule.seed)  # what losses train beside the student starts the same in every run
    objective = build_objective(teaching.losses if schedule.epochs else (), networks, schedule.epochs)
    source = _teacher_source(task, teaching, teachers, objective, images, views)
    own = task.for_student()
    validation, processing = own.load().validation, own.normalization.processing()
    return fit(
        model,
        objective,
        TrainingData(images=seen, labels=networks.labels, views=views, teachers=source),
        schedule,
        name=name,
        validate=lambda trained: accuracy_of(trained, validation, processing),
        out_dir=out_dir,
        on_progress=on_progress,
        on_epoch=on_epoch,
        on_metrics=on_metrics,
    )


def viewed(images_NHWC: np.ndarray, task: AnyTask) -> tuple[ViewedImages, ViewedImages]:
    """Return the same training images as the teacher sees them, and as the student does."""
    whole = torch.from_numpy(images_NHWC)
    images = ViewedImages(whole, task.views, task.normalization.processing())
    if task.student_sees is None:
        return images, images
    return images, ViewedImages(whole, task.views, task.student_sees.normalization.processing(), task.student_sees)


def save_checkpoint(
    out_dir: Path,
    model: nn.Module,
    dataset: Dataset,
    result: FitResult,
    *,
    schedule: TrainingSchedule | None = None,
    teaching: Teaching | None = None,
) -> Checkpoint:
    """Write `model.safetensors` and return what is known of it; the state to resume from is not needed any more."""
    path = out_dir / "model.safetensors"
    digest = save_weights(path, model, _provenance(dataset, schedule, teaching))
    (out_dir / RESUME_FILE).unlink(missing_ok=True)
    height, width, channels = dataset.train.images.shape[1:]
    return Checkpoint(
        path=path,
        sha256=digest,
        image_shape=(height, width, channels),
        classes=dataset.classes,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        epochs=result.epochs,
        validation_accuracy=result.last,
        best_validation_accuracy=result.best,
    )


def _provenance(dataset: Dataset, schedule: TrainingSchedule | None, teaching: Teaching | None) -> dict[str, str]:
    """Return what made the weights: seeds, versions and digests, in the metadata of their file."""
    found = {
        "train_images": hashlib.sha256(dataset.train.images.tobytes()).hexdigest(),
        "train_labels": hashlib.sha256(dataset.train.labels.tobytes()).hexdigest(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
        **({} if torch.cuda.is_available() else {"kernels": kernels_in_use()}),
    }
    if schedule is not None:
        found |= {"seed": str(schedule.seed), "schedule": schedule.model_dump_json()}
    if teaching is not None:
        found["teachers"] = ",".join(teacher.checkpoint.sha256 for teacher in teaching.teachers)
        found["losses"] = json.dumps([loss.model_dump(mode="json") for loss in teaching.losses], sort_keys=True)
    return found


def _require_same_classes(teachers: tuple[TrainedModel, ...]) -> None:
    for place, teacher in enumerate(teachers[1:]):
        if teacher.checkpoint.classes != teachers[0].checkpoint.classes:
            raise RecipeError(
                f"more_teachers[{place}]: expected the first teacher's {len(teachers[0].checkpoint.classes)} classes, "
                f"since their probabilities are averaged; got {len(teacher.checkpoint.classes)}"
            )


def _teacher_source(
    task: AnyTask,
    teaching: Teaching,
    teachers: tuple[nn.Module, ...],
    objective: Objective,
    images: ViewedImages,
    views: ViewSchedule,
) -> TeacherSource | None:
    """Return where the fit asks: the disk, or the teachers themselves where whole features are read."""
    if not objective.needs_teacher:
        return None
    layers = objective.teacher_layers
    if teaching.live or (layers and not objective.pooled):
        return LiveTeachers(teachers, layers, images, views, teaching.precision)
    return StoredTeachers(
        [
            TeacherOutputs(
                teaching.outputs,
                _key(task, trained, images, teaching.precision),
                network,
                images,
                views,
                layers=layers if place == 0 else (),
                precision=teaching.precision,
            )
            for place, (trained, network) in enumerate(zip(teaching.teachers, teachers, strict=True))
        ]
    )


def _key(task: AnyTask, teacher: TrainedModel, images: ViewedImages, precision: TeacherPrecision) -> dict[str, str]:
    """Return what a teacher's outputs depend on; how many of the columns are in use is no part of it."""
    views = task.views.model_copy(update={"in_use": None})
    return {
        "teacher": teacher.checkpoint.sha256,
        "model": canonical_sha256(canonical(teacher.model, "model")),
        "images": images.digest,
        "normalization": canonical_sha256(canonical(task.normalization, "normalization")),
        "views": canonical_sha256(canonical(views, "views")),
        "precision": f"{precision}, BatchNorm folded, sums and ReLU fused, kept as fp16",
        "torch": torch.__version__,
        **({"numpy": np.__version__} if views.mixup or views.colour else {}),  # which draws them
    }
