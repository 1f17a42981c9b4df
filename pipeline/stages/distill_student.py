"""Stage: distills the teacher into the float student."""

from pathlib import Path

from pipeline.artifacts import Checkpoint, SyntheticImages
from pipeline.models import AnyModel
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks import AnyTask
from pipeline.tasks.synthetic import dataset_of
from pipeline.training.fit import OnMetrics, ignore_metrics
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching, train_from_nothing

STAGE_VERSION = 2
TOOLCHAIN = ("torch", "numpy")


def distill_student(
    out_dir: Path,
    task: AnyTask,
    model: AnyModel,
    training: TrainingSchedule,
    teaching: Teaching,
    images: SyntheticImages | None = None,
    *,
    on_progress: OnProgress = say_nothing,
    on_metrics: OnMetrics = ignore_metrics,
) -> Checkpoint:
    """Train `model` from nothing on the views of the task's images, or of synthetic ones, taught by `teaching`.

    Raises:
        DataError: the data is missing or damaged.
        RecipeError: a loss wants a teacher and there is none, or the user's own model or loss does not fit.
        TrainingDiverged: the loss is no longer finite.
    """
    whole = dataset_of(images, task.load()) if images else task.load()
    return train_from_nothing(
        out_dir,
        task,
        model,
        training,
        teaching,
        whole=whole,
        name="distill_student",
        on_progress=on_progress,
        on_metrics=on_metrics,
    )
