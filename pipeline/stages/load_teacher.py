"""Stage: takes a teacher's weights from the user's checkpoint."""

from pathlib import Path

from pipeline.artifacts import Checkpoint
from pipeline.models import AnyModel
from pipeline.models.trained import load_weights, read_state
from pipeline.tasks import AnyTask
from pipeline.tasks.dataset import first_classes
from pipeline.training.evaluate import accuracy_of
from pipeline.training.fit import FitResult
from pipeline.training.student_run import build_network, save_checkpoint

STAGE_VERSION = 2
TOOLCHAIN = ("torch",)


def load_teacher(
    out_dir: Path, task: AnyTask, model: AnyModel, checkpoint: Path, num_classes: int | None = None
) -> Checkpoint:
    """Load a state dict (torch's format, read with weights_only, or safetensors) into `model`; keep it as safetensors.

    With `num_classes` it knows only the first of the data's classes.

    Raises:
        RecipeError: `num_classes` is more than the data has.
        DataError: the file is damaged, holds pickled objects, or its names and shapes are not the model's.
    """
    dataset = first_classes(task.load(), num_classes)
    network = build_network(model, dataset)
    load_weights(network, read_state(checkpoint), where=str(checkpoint))
    accuracy = accuracy_of(network.eval(), dataset.validation, task.normalization.processing())
    return save_checkpoint(out_dir, network, dataset, FitResult(epochs=0, last=accuracy, best=accuracy))
