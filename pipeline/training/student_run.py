"""What float and quantized students share: data in views, the teacher's outputs beside them, one fit."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint
from pipeline.canonical import canonical, canonical_sha256
from pipeline.distillation import AnyLoss
from pipeline.errors import RecipeError
from pipeline.models import AnyModel, build_model
from pipeline.models.trained import TrainedModel, save_weights
from pipeline.progress import OnProgress
from pipeline.tasks import AnyTask
from pipeline.tasks.dataset import Dataset
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.evaluate import accuracy_of
from pipeline.training.fit import FitResult, TrainingData, fit
from pipeline.training.objective import WeightedLosses
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.quantized_model import make_quantized
from pipeline.training.resume import RESUME_FILE
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.teacher_outputs import TeacherOutputs
from pipeline.training.views import ViewedImages, ViewSchedule


@dataclass(frozen=True)
class Teaching:
    """Who teaches, by which losses, and where what it said is kept."""

    teacher: TrainedModel | None
    losses: tuple[AnyLoss, ...]
    outputs: OutputsFolder


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
    student: TrainedModel, task: AnyTask, dataset: Dataset, calibration: Calibration, scheme: Scheme
) -> fx.GraphModule:
    """Return a float student on a grid: BatchNorm folded, ranges from the validation cut. Raises as both do."""
    network = make_quantized(student.load(), scheme)
    images = ViewedImages(torch.from_numpy(dataset.validation.images), task.views, task.normalization.processing())
    calibrate(network, images.batch, len(images), calibration)
    return network


def run_training(
    model: nn.Module,
    task: AnyTask,
    dataset: Dataset,
    schedule: TrainingSchedule,
    teaching: Teaching,
    *,
    name: str,
    out_dir: Path,
    on_progress: OnProgress,
    on_epoch: Callable[[nn.Module, int], None] = lambda model, epoch: None,
) -> FitResult:
    """Train `model` on the views of the task, taught by `teaching`. Raises as `fit`."""
    objective = WeightedLosses(teaching.losses)
    processing = task.normalization.processing()
    images = ViewedImages(torch.from_numpy(dataset.train.images), task.views, processing)
    views = ViewSchedule(task.views, len(images), task.views.seed)
    data = TrainingData(
        images=images,
        labels=torch.from_numpy(dataset.train.labels),
        views=views,
        num_columns=task.views.num_columns,
        teacher=_outputs(task, teaching, images, views) if objective.needs_teacher and schedule.epochs else None,
    )
    return fit(
        model,
        objective,
        data,
        schedule,
        name=name,
        validate=lambda trained: accuracy_of(trained, dataset.validation, processing),
        out_dir=out_dir,
        on_progress=on_progress,
        on_epoch=on_epoch,
    )


def save_checkpoint(out_dir: Path, model: nn.Module, dataset: Dataset, result: FitResult) -> Checkpoint:
    """Write `model.safetensors` and return what is known of it; the state to resume from is not needed any more."""
    path = out_dir / "model.safetensors"
    digest = save_weights(path, model)
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


def _outputs(task: AnyTask, teaching: Teaching, images: ViewedImages, views: ViewSchedule) -> TeacherOutputs:
    if teaching.teacher is None:
        raise RecipeError("losses: expected a teacher for a loss that reads its logits; got none")
    key = {
        "teacher": teaching.teacher.checkpoint.sha256,
        "model": canonical_sha256(canonical(teaching.teacher.model, "model")),
        "data": canonical_sha256(canonical(task.data, "data")),
        "normalization": canonical_sha256(canonical(task.normalization, "normalization")),
        "views": f"padding {task.views.padding}, flip {task.views.flip}, seed {task.views.seed}",
        "precision": "bf16, BatchNorm folded, kept as fp16",
        "torch": torch.__version__,
    }
    return TeacherOutputs(teaching.outputs, key, teaching.teacher.load(), images, views)
