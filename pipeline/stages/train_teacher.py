"""Stage: trains a teacher from nothing, on labels."""

from pathlib import Path

from pipeline.artifacts import Checkpoint
from pipeline.distillation.labels import CrossEntropy
from pipeline.models import AnyModel
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks import AnyTask
from pipeline.training.fit import OnMetrics, ignore_metrics
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching, train_from_nothing

STAGE_VERSION = 2
TOOLCHAIN = ("torch", "numpy")


def train_teacher(
    out_dir: Path,
    task: AnyTask,
    model: AnyModel,
    training: TrainingSchedule,
    *,
    on_progress: OnProgress = say_nothing,
    on_metrics: OnMetrics = ignore_metrics,
) -> Checkpoint:
    """Train `model` by cross-entropy on every view of the task's training images.

    Raises:
        DataError: the data is missing or damaged.
        TrainingDiverged: the loss is no longer finite.
    """
    task = task.for_teacher()
    return train_from_nothing(
        out_dir,
        task,
        model,
        training,
        Teaching(teachers=(), losses=(CrossEntropy(),), outputs=OutputsFolder(out_dir)),
        whole=task.load(),
        name="train_teacher",
        on_progress=on_progress,
        on_metrics=on_metrics,
    )
