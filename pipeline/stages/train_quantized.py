"""Stage: trains the student on a target's int8 grid, while the teacher still teaches."""

from pathlib import Path

from torch import nn

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint, SyntheticImages
from pipeline.errors import RecipeError
from pipeline.models.trained import TrainedModel
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks import AnyTask
from pipeline.tasks.synthetic import dataset_of
from pipeline.training.calibrate import Calibration
from pipeline.training.fake_quantize import Scales, activation_quantizers, fix_scales, learn_scales
from pipeline.training.fit import OnMetrics, ignore_metrics
from pipeline.training.schedule import TrainingSchedule
from pipeline.training.student_run import Teaching, build_calibrated, run_training, save_checkpoint

STAGE_VERSION = 3
TOOLCHAIN = ("torch", "numpy")


def train_quantized(
    out_dir: Path,
    task: AnyTask,
    student: TrainedModel,
    training: TrainingSchedule,
    teaching: Teaching,
    images: SyntheticImages | None = None,
    *,
    calibration: Calibration,
    scheme: Scheme,
    scales: Scales = "ema",
    float_layers: tuple[str, ...] = (),
    on_progress: OnProgress = say_nothing,
    on_metrics: OnMetrics = ignore_metrics,
) -> Checkpoint:
    """Fold, calibrate, and fine-tune with fake quantization, but for the layers of a plan.

    Ranges move for the first half and are fixed after it; learned scales learn to the end. With zero epochs this is
    post-training quantization.

    Raises:
        RecipeError: the student does not trace, has nothing to quantize, or does not have a layer of the plan.
        DataError: calibration met values that are not finite.
        TrainingDiverged: the loss is no longer finite.
    """
    dataset = dataset_of(images, task.load()) if images else task.load()
    own = task.for_student()
    network = build_calibrated(student, own, own.load(), calibration, scheme, float_layers)
    if scales == "learned" and training.epochs:
        learn_scales(network)

    def move_ranges(model: nn.Module, epoch: int) -> None:
        for quantizer in activation_quantizers(model).values():
            quantizer.restore()
            quantizer.moving = epoch < training.epochs / 2

    result = run_training(
        network,
        task,
        dataset,
        training,
        teaching,
        kind=student.model.kind,
        new_student=_no_peer,
        name="train_quantized",
        out_dir=out_dir,
        on_progress=on_progress,
        on_metrics=on_metrics,
        on_epoch=move_ranges,
    )
    fix_scales(network)
    return save_checkpoint(out_dir, network, own.load(), result, schedule=training, teaching=teaching)


def _no_peer() -> nn.Module:
    raise RecipeError(
        "quantization.losses: dml: expected a loss for a student that is trained already; a peer would start "
        "untrained. Put dml into distillation.losses, and a kd at temperature 1 here"
    )
