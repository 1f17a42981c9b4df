"""Stage: trains a teacher from nothing, on labels."""

from pathlib import Path

import torch

from pipeline.artifacts import Checkpoint
from pipeline.distillation.labels import CrossEntropy
from pipeline.models import AnyModel
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks import AnyTask
from pipeline.training.fit import OnMetrics, ignore_metrics
from pipeline.training.outputs_folder import OutputsFolder
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching, build_network, run_training, save_checkpoint

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
    dataset = task.load()
    torch.manual_seed(training.seed)
    network = build_network(model, dataset)
    teaching = Teaching(teachers=(), losses=(CrossEntropy(),), outputs=OutputsFolder(out_dir))
    result = run_training(
        network,
        task,
        dataset,
        training,
        teaching,
        kind=model.kind,
        new_student=lambda: build_network(model, dataset),
        name="train_teacher",
        out_dir=out_dir,
        on_progress=on_progress,
        on_metrics=on_metrics,
    )
    return save_checkpoint(out_dir, network, dataset, result, schedule=training, teaching=teaching)
