"""Stage: puts a student on a target's int8 grid by calibration alone; nothing is trained."""

from pathlib import Path

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint
from pipeline.models.trained import TrainedModel
from pipeline.tasks import AnyTask
from pipeline.training.calibrate import Calibration
from pipeline.training.evaluate import accuracy_of
from pipeline.training.fit import FitResult
from pipeline.training.student_run import build_calibrated, save_checkpoint

STAGE_VERSION = 2
TOOLCHAIN = ("torch", "numpy")


def calibrate_student(
    out_dir: Path,
    task: AnyTask,
    student: TrainedModel,
    calibration: Calibration,
    scheme: Scheme,
    float_layers: tuple[str, ...] = (),
) -> Checkpoint:
    """Fold BatchNorm, place fake quantization but for the layers of a plan, and set its ranges.

    Raises:
        RecipeError: the student does not trace, has nothing to quantize, or does not have a layer of the plan.
        DataError: calibration met values that are not finite.
    """
    dataset = task.load()
    network = build_calibrated(student, task, dataset, calibration, scheme, float_layers)
    accuracy = accuracy_of(network, dataset.validation, task.normalization.processing())
    return save_checkpoint(out_dir, network, dataset, FitResult(epochs=0, last=accuracy, best=accuracy))
