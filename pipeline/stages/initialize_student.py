"""Stage: an untrained student, for the first answer on the device before anything is trained."""

from pathlib import Path

import torch

from pipeline.artifacts import Checkpoint
from pipeline.models import AnyModel
from pipeline.tasks import AnyTask
from pipeline.training.evaluate import accuracy_of
from pipeline.training.fit import FitResult
from pipeline.training.student_run import build_network, save_checkpoint

STAGE_VERSION = 1
TOOLCHAIN = ("torch",)


def initialize_student(out_dir: Path, task: AnyTask, model: AnyModel, seed: int) -> Checkpoint:
    """Return the student as distillation would start it.

    Raises:
        DataError: the data is missing or damaged.
        RecipeError: the user's own model cannot be built.
    """
    dataset = task.load()
    torch.manual_seed(seed)
    network = build_network(model, dataset)
    accuracy = accuracy_of(network.eval(), dataset.validation, task.normalization.processing())
    return save_checkpoint(out_dir, network, dataset, FitResult(epochs=0, last=accuracy, best=accuracy))
