"""Stage: distills the teacher into the float student."""

from pathlib import Path

import torch

from pipeline.artifacts import Checkpoint
from pipeline.models import AnyModel
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks import AnyTask
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching, build_network, run_training, save_checkpoint

STAGE_VERSION = 1
TOOLCHAIN = ("torch", "numpy")


def distill_student(
    out_dir: Path,
    task: AnyTask,
    model: AnyModel,
    training: TrainingSchedule,
    teaching: Teaching,
    *,
    on_progress: OnProgress = say_nothing,
) -> Checkpoint:
    """Train `model` from nothing on the views of the task, taught by `teaching`.

    Raises:
        DataError: the data is missing or damaged.
        RecipeError: a loss wants a teacher and there is none, or the user's own model or loss does not fit.
        TrainingDiverged: the loss is no longer finite.
    """
    dataset = task.load()
    torch.manual_seed(training.seed)
    network = build_network(model, dataset)
    result = run_training(
        network, task, dataset, training, teaching, name="distill_student", out_dir=out_dir, on_progress=on_progress
    )
    return save_checkpoint(out_dir, network, dataset, result)
